"""Worker processes divide the credentials among themselves, and notice a replaced Redis."""

from itertools import takewhile
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from shared import keys
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.settings.schema import PoolSettings, Settings
from workers.process.membership import HANDOVER_SECONDS, PRIVATE_GROUP, Membership

POOLS = (PoolSettings(private_credentials=True, private_most=9), PoolSettings(name="other"))


def test_private_credentials_are_shared_out_as_if_they_were_one_pool(redis: Redis, unsealer: Unsealer):
    store = PrivateCredentials(redis)
    settings = Settings(pools=POOLS)
    both = [Membership(redis, name, settings) for name in ("a", "b")]
    Credentials(redis).import_lines("default", ["one", "two", "three"])
    names = {store.add("default", f"private-{i}", 9) for i in range(6)}
    store.add("other", "its pool allows none", 9)
    for _ in range(2):
        for membership in both:
            membership.refresh([])
    assert [sorted(membership.pools_in_group(PRIVATE_GROUP)) for membership in both] == [sorted(names)] * 2
    assert sum(membership.fair_share("default") for membership in both) == 3
    assert [membership.fair_share(PRIVATE_GROUP) for membership in both] == [3, 3]


def test_private_credentials_cost_no_commands_of_their_own(redis: Redis, unsealer: Unsealer):
    store = PrivateCredentials(redis)
    membership = Membership(redis, "here", Settings(pools=POOLS))
    membership.refresh([])
    counts = []
    for number in (1, 30):
        names = [store.add("default", f"private-{number}-{i}", 99) for i in range(number)]
        redis.hset(keys.breaker(names[0]), "reason", "timeout")
        with redis.monitor() as monitor:
            membership.refresh([])
            redis.echo("end")
            sent = takewhile(lambda command: command["command"] != "ECHO end", monitor.listen())
            # A new connection introduces itself (CLIENT SETINFO).
            own = [command for command in sent if not command["command"].startswith("CLIENT ")]
            counts.append(sum(command["client_type"] != "lua" for command in own))
        assert membership.breakers[names[0]] == {"reason": "timeout"}
        assert [len(membership.usable_credentials(name)) for name in names] == [1] * number
    assert counts[0] == counts[1]


def build_busy_worker() -> Any:
    runner = SimpleNamespace(busy_since=1.0, seconds_worked=lambda: 1.0)
    return SimpleNamespace(
        name="default.a",
        lease=SimpleNamespace(pool="default", credential_id="a"),
        runner=runner,
        is_registered=True,
        blocking_pop=SimpleNamespace(client_id=0),
    )


def test_running_requests_of_a_retiring_process_are_still_shown(redis: Redis, unsealer: Unsealer):
    def read_status() -> PoolStatus:
        return read_pool_statuses(redis, ["default"])[0]

    old, new = (Membership(redis, name, Settings()) for name in ("old", "new"))
    Credentials(redis).import_lines("default", ["one", "two", "three"])
    old.refresh([build_busy_worker()])
    assert (read_status().workers["busy"], read_status().is_served) == (1, True)
    old.retire([build_busy_worker()], is_replaced=False)
    assert (read_status().workers["busy"], read_status().is_served) == (1, False)
    new.refresh([])
    assert new.fair_share("default") == 3
    old.leave()
    assert (read_status().workers["busy"], read_status().is_served) == (0, False)
    assert set(redis.keys("farm:process*")) == {b"farm:process:new", b"farm:processes"}


def test_farm_serves_while_a_process_leaves_its_credentials_to_another(redis: Redis, unsealer: Unsealer):
    """A load balancer would take the farm's only front out of service at each reload."""

    def is_served() -> bool:
        return read_pool_statuses(redis, ["default"])[0].is_served

    old, new = (Membership(redis, name, Settings()) for name in ("old", "new"))
    Credentials(redis).import_lines("default", ["one", "two"])
    old.refresh([build_busy_worker()])
    new.refresh([])
    old.retire([], is_replaced=True)
    assert is_served()
    old.leave()
    assert is_served()
    new.leave()
    assert not is_served(), "nobody takes over"
    new.refresh([])
    for credential in redis.hkeys(keys.credentials("default")):
        redis.hset(keys.credentials("default"), credential, "dead")
    assert not is_served(), "there is nothing to take over"
    assert 0 < redis.ttl(keys.HANDOVER) <= HANDOVER_SECONDS


@pytest.mark.parametrize(
    ("url", "is_failover"), [("redis://localhost", False), ("redis+sentinel://one:26379/farm/0", True)]
)
def test_membership_notices_a_replaced_redis(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, url: str, is_failover: bool
):
    membership = Membership(redis, "here", Settings(redis_url=url))
    membership.refresh([])
    assert membership.redis_replaced_at == float("-inf")
    before = membership.refreshed_at
    server_info = dict(redis.info("server"))
    monkeypatch.setitem(redis.response_callbacks, "INFO", lambda *_, **__: server_info | {"run_id": "another"})
    membership.refresh([])
    assert membership.redis_replaced_at == before
    assert (membership.failed_over_at > before) == is_failover
    membership.refresh([])
    assert membership.redis_replaced_at == before
