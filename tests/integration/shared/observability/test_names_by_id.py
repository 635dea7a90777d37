"""Lists show names beside the ids of API keys and credentials."""

from typing import Any

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.names_by_id import find_credential_names, find_key_names, name_columns, name_rows


@pytest.fixture
def ids(redis: Redis, unsealer: Unsealer) -> tuple[str, str]:
    """A key named `reader` and a credential labelled `first`."""
    _, key = ApiKeys(redis).create("reader")
    credential_id, _ = Credentials(redis).add("default", "a-token", "first")
    return key.id, credential_id


def test_what_is_unknown_is_left_out(redis: Redis, ids: tuple[str, str]):
    key_id, credential_id = ids
    assert find_key_names(redis, [key_id, "nothing", "-", ""]) == {key_id: "reader"}
    assert find_credential_names(redis, [credential_id, "nothing", "-", ""]) == {credential_id: "first"}


def test_account_stands_for_a_missing_label(redis: Redis, ids: tuple[str, str]):
    Credentials(redis).set_label("default", ids[1], "")
    redis.hset(f"farm:credential:{ids[1]}", "account", "someone@example.com")
    assert find_credential_names(redis, [ids[1]]) == {ids[1]: "s***e@example.com"}


def test_names_of_what_is_gone_stay(redis: Redis, ids: tuple[str, str]):
    key_id, first = ids
    credentials = Credentials(redis)
    second, _ = credentials.add("default", "another-token")
    redis.hset(keys.credential(second), "account", "someone@example.com")
    nameless, _ = credentials.add("default", "a-third-token")
    for credential_id in (first, second, nameless):
        assert credentials.remove("default", credential_id)
    ApiKeys(redis).revoke(key_id)
    assert find_credential_names(redis, [first, second, nameless]) == {first: "first", second: "s***e@example.com"}
    assert find_key_names(redis, [key_id]) == {key_id: "reader"}
    assert 0 < redis.ttl(keys.removed(first)) <= 400 * 86_400


def test_rows_of_many_batches_are_named_in_order(redis: Redis, ids: tuple[str, str]):
    rows: list[dict[str, Any]] = [{"n": n, "key": ids[0] if n % 2 else f"unknown-{n}"} for n in range(2500)]
    named = list(name_rows(redis, rows))
    assert [row["n"] for row in named] == list(range(2500))
    assert {row["key_name"] for row in named[1::2]} == {"reader"}
    assert {row["key_name"] for row in named[::2]} == {""}
    assert name_columns(("key", "pool", "credential")) == ("key", "pool", "credential", "key_name", "credential_name")
