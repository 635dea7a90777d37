"""Callers authenticate with their own refresh token where a pool allows it."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import ApiError
from shared.network.ip_addresses import caller_network
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.settings.schema import PoolSettings
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers

POOLS = (PoolSettings(private_credentials=True, private_most=9), PoolSettings(name="other"))


class FakeOperations:
    """Credential operations that succeed or fail as the test says."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        #: Pools of the tokens whose verification was requested.
        self.requested: list[str] = []
        self.good: set[str] = set()
        self.is_down = False
        self.is_silent = False

    def request(self, operation: CredentialOperation, timeout: float) -> dict[str, object]:
        self.requested.append(operation.pool)
        if self.is_down:
            return {"ok": False, "error": "down"}
        if len(self.requested) > len(self.good) and "*" not in self.good:
            Credentials(self.redis).set_state(operation.pool, operation.credential_id, "dead", "invalid_grant")
            return {"ok": False, "error": "refused"}
        self.redis.hset(keys.credential(operation.credential_id), "refreshed_at", time.time())
        if self.is_silent:
            raise NoWorkerProcess("not in time")
        return {"ok": True}


@pytest.fixture
def operations(redis: Redis, unsealer: Unsealer) -> FakeOperations:
    return FakeOperations(redis)


def build_callers(redis: Redis, operations: FakeOperations, *pools: PoolSettings) -> PrivateCallers:
    """Those of a front with an empty cache."""
    return PrivateCallers(redis, pools or POOLS, operations)  # type: ignore[arg-type]


def refusal(callers: PrivateCallers, token: str, address: str = "192.0.2.1", pool: str = "") -> str:
    """The error code for that token."""
    with pytest.raises(ApiError) as caught:
        callers.authenticate(token, address, pool)
    return caught.value.code


def test_good_token_is_verified_once_by_all_fronts(redis: Redis, operations: FakeOperations):
    operations.good.add("*")
    authenticated = [build_callers(redis, operations).authenticate("a-token", "192.0.2.1", "") for _ in range(3)]
    assert len({(caller.id, caller.pool) for caller in authenticated}) == 1
    assert operations.requested == [authenticated[0].pool]


def test_wrong_tokens_are_counted_by_network_and_verified_once(redis: Redis, operations: FakeOperations):
    callers = build_callers(redis, operations)
    assert [refusal(callers, "wrong-0", "2001:db8::1") for _ in range(3)] == ["invalid_refresh_token"] * 3
    assert len(operations.requested) == 1
    assert {refusal(callers, f"wrong-{i}", f"2001:db8::{i}") for i in range(1, 5)} == {"invalid_refresh_token"}
    assert refusal(build_callers(redis, operations), "wrong-5", "2001:db8::9") == "too_many_tokens"
    assert refusal(callers, "wrong-5", "2001:db8:0:1::9") == "invalid_refresh_token"
    assert PrivateCredentials(redis).list_pools() == []


def test_token_is_kept_for_a_minute_while_the_token_endpoint_is_down(redis: Redis, operations: FakeOperations):
    operations.is_down = True
    callers = build_callers(redis, operations)
    assert {refusal(callers, "a-token") for _ in range(9)} == {"token_not_tried"}
    assert {refusal(callers, f"another-{i}") for i in range(4)} == {"token_not_tried"}
    assert refusal(callers, "one too many") == "too_many_tokens"
    store, idle = PrivateCredentials(redis), POOLS[0].private_idle
    (pool, *_) = operations.requested
    assert store.forget_idle(lambda _: idle) == []
    assert pool in store.forget_idle(lambda _: idle - 61)
    operations.is_down = False
    operations.good.add("*")
    assert callers.authenticate("a-token", "192.0.2.1", "").pool.startswith("default~")


def test_token_that_was_refreshed_despite_a_timeout_is_good(redis: Redis, operations: FakeOperations):
    operations.good.add("*")
    operations.is_silent = True
    assert build_callers(redis, operations).authenticate("a-token", "192.0.2.1", "").pool == operations.requested[0]


def test_disabled_and_dead_credentials_are_refused_with_their_own_codes(redis: Redis, operations: FakeOperations):
    operations.good.add("*")
    caller = build_callers(redis, operations).authenticate("a-token", "192.0.2.1", "")
    credential_id = caller.pool.partition("~")[2]
    Credentials(redis).set_state(caller.pool, credential_id, "disabled", "by a person")
    assert refusal(build_callers(redis, operations), "a-token") == "private_credential_disabled"
    Credentials(redis).enable(caller.pool, credential_id)
    Credentials(redis).set_state(caller.pool, credential_id, "dead", "invalid_grant")
    assert refusal(build_callers(redis, operations), "a-token") == "invalid_refresh_token"


def test_token_is_verified_only_at_the_pool_that_its_caller_names(redis: Redis, operations: FakeOperations):
    operations.good.add("*")
    pools = tuple(PoolSettings(name=name, private_credentials=True) for name in ("one", "two"))
    callers = build_callers(redis, operations, *pools)
    assert refusal(callers, "a-token") == refusal(callers, "a-token", pool="three") == "private_pool_needed"
    assert callers.authenticate("a-token", "192.0.2.1", "two").pool.startswith("two~")
    assert all(pool.startswith("two~") for pool in operations.requested)


@pytest.mark.parametrize(
    ("token", "takes"),
    [
        ("a-token", True),
        ("sk-mistyped", False),
        ("admin-token", False),
        ("has space", False),
        ("", False),
        ("a" * 20_000, False),
    ],
)
def test_implausible_tokens_are_not_taken_for_refresh_tokens(
    redis: Redis, operations: FakeOperations, token: str, takes: bool
):
    assert build_callers(redis, operations).may_be_token(token) is takes
    assert not PrivateCallers(redis, (PoolSettings(),), CredentialOperations(redis)).may_be_token(token)


def test_api_key_without_the_usual_prefix_is_still_an_api_key(redis: Redis, operations: FakeOperations):
    api_keys = ApiKeys(redis)
    api_keys.create_if_missing("a-key-of-the-operator", "scripted")
    authenticator = Authenticator(api_keys, build_callers(redis, operations))
    assert authenticator.authenticate(["a-key-of-the-operator"], "192.0.2.1").name == "scripted"
    assert operations.requested == []


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.7", "192.0.2.7/32"), ("2001:db8::7", "2001:db8::/64"), ("::ffff:192.0.2.7", "192.0.2.7/32"), ("", "?")],
)
def test_ipv6_callers_are_counted_by_their_64_bit_network(address: str, network: str):
    assert caller_network(address) == network


def test_secret_of_the_farm_is_never_sent_to_a_token_endpoint(redis: Redis, operations: FakeOperations):
    operations.good.add("*")
    AdminTokens(redis).ensure_first("console-secret-of-2024")
    Credentials(redis).add("other", "token-of-another-pool")
    callers = build_callers(redis, operations)
    assert refusal(callers, "console-secret-of-2024") == "invalid_api_key"
    assert refusal(callers, "token-of-another-pool") == "private_token_taken"
    ApiKeys(redis).create_if_missing("custom-key-of-2024", "FARM_API_KEY")
    # As a front does that still believes for a second that there is no such key.
    assert refusal(callers, "custom-key-of-2024") == "invalid_api_key"
    assert operations.requested == []
    assert PrivateCredentials(redis).list_pools() == []
