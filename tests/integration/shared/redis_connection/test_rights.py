"""A Redis user without a right that the farm needs is refused at the start, with what it may not do."""

import pytest
from redis import Redis

from bench.replicated_redis import RIGHTS, SENTINEL_RIGHTS
from shared.errors import StoreUnavailable
from shared.redis_connection.client import check_server, connect
from tests.environment import ROOT

GRANTED = RIGHTS.split()


def check_with(redis: Redis, redis_url: str, rights: list[str], password: str = "secret") -> None:
    redis.execute_command("ACL", "SETUSER", "farm", "reset", "on", ">secret", "resetchannels", *rights)
    client = connect(redis_url.replace("unix://", f"unix://farm:{password}@"), size=1)
    try:
        check_server(client)
    finally:
        client.connection_pool.disconnect()
        redis.execute_command("ACL", "DELUSER", "farm")


def test_page_states_the_rights_that_the_tests_grant():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert f"ACL SETUSER farm on >SECRET {RIGHTS}\n" in page
    assert f"`ACL SETUSER farm on >SECRET {SENTINEL_RIGHTS}`" in page


def test_documented_rights_suffice(redis: Redis, redis_url: str):
    check_with(redis, redis_url, GRANTED)


@pytest.mark.parametrize("missing", ["~farm:*", "~rq:*", "&*", "+info", "+client|id", "+client|unblock"])
def test_missing_right_is_named(redis: Redis, redis_url: str, missing: str):
    # What Redis 6.2 counts as dangerous (CLIENT ID) newer ones grant with @all.
    denied = [missing.replace("+", "-")] if missing.startswith("+") else []
    rights = [right for right in GRANTED if right != missing] + denied
    with pytest.raises(StoreUnavailable, match=r"REDIS_URL: .*rights of its user.*permission"):
        check_with(redis, redis_url, rights)


def test_wrong_password_is_not_printed(redis: Redis, redis_url: str):
    with pytest.raises(StoreUnavailable, match="refuses its user or password") as caught:
        check_with(redis, redis_url, GRANTED, "wr0ng")
    assert "wr0ng" not in str(caught.value)
