"""Private credentials in Redis: what is kept of one, when it is forgotten, and how the processes share them out."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.credentials.private import PrivateCredentials, list_all_pools, remove_credential
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import ApiError
from shared.protocol.credential_operations import CredentialOperation, NoWorkerProcess
from shared.protocol.relay_queue import RelayQueue
from shared.settings.schema import PoolSettings, Settings
from tests.builders import build_request
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers, caller_network
from workers.process.membership import PRIVATE_GROUP, Membership

POOLS = (PoolSettings(private_credentials=True, private_most=9), PoolSettings(name="other"))


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> PrivateCredentials:
    return PrivateCredentials(redis)


def test_a_token_is_one_credential_however_often_it_is_added_and_sealed(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    assert store.add("default", "a-token", 2) == name
    assert store.list_pools() == [name]
    known = store.find("default", "a-token")
    assert known is not None
    assert (known.pool, known.state, known.is_proven) == (name, "active", False)
    assert store.find("other", "a-token") is None
    sealed = redis.hget(keys.credential(known.credential_id), "sealed")
    assert sealed and b"a-token" not in sealed


def test_there_are_so_many_in_a_pool_and_others_do_not_count(store: PrivateCredentials):
    assert all([store.add("default", "one", 2), store.add("default", "two", 2), store.add("other", "one", 1)])
    assert store.add("default", "three", 2) == ""
    assert (store.count_by_pool()["default"], store.count_by_pool()["other"]) == (2, 1)


def test_an_account_is_private_or_the_pools_and_never_both(store: PrivateCredentials, redis: Redis):
    credentials = Credentials(redis)
    ours, _ = credentials.add("default", "ours")
    assert store.add("default", "ours", 2) == "default"
    name = store.add("default", "theirs", 2)
    report = credentials.import_lines("default", ["theirs"])
    assert report.count("duplicate") == 1
    assert list(credentials.get_states("default")) == [ours]
    assert list_all_pools(redis, ["default"]) == ["default", name]
    assert list_all_pools(redis, ["other"]) == ["other"]


def test_one_that_is_idle_is_forgotten_with_everything_and_one_that_works_is_not(
    store: PrivateCredentials, redis: Redis
):
    before = set(redis.scan_iter())
    name = store.add("default", "a-token", 2)
    queue = RelayQueue(redis, 10)
    queue.enqueue(build_request("req_1", pool=name, key="private-x"), b"{}")
    redis.zadd(keys.PRIVATE_POOLS, {name: time.time() - 100})
    redis.set(keys.served_jobs(name), 1)
    redis.zadd(f"rq:failed:batch:{name}", {"req_2": 1})
    redis.hset("rq:job:req_2", "status", "failed")
    redis.hset(keys.LAST_USED, f"private-{name.partition('~')[2]}", 1)
    assert store.forget_idle(lambda _: 60) == []
    queue.withdraw(name, "req_1")
    redis.zadd(keys.PRIVATE_POOLS, {name: time.time() - 100})
    redis.zadd("rq:wip:chat:" + name, {"req_1:execution": time.time() + 60})
    assert store.forget_idle(lambda _: 60) == []
    redis.delete("rq:wip:chat:" + name)
    assert store.forget_idle(lambda _: 60) == []
    redis.zadd(keys.PRIVATE_POOLS, {name: time.time() - 100})
    assert store.forget_idle(lambda _: 200) == []
    assert store.forget_idle(lambda _: 60) == [name]
    assert set(redis.scan_iter()) == before
    store.touch(name)
    assert store.list_pools() == []


def test_what_a_person_has_disabled_is_not_forgotten(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    Credentials(redis).set_state(name, name.partition("~")[2], "disabled", "by a person")
    redis.zadd(keys.PRIVATE_POOLS, {name: 1})
    assert store.forget_idle(lambda _: 60) == []
    assert store.forget(name)


def test_an_operator_removes_one_like_any_other(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    assert remove_credential(redis, name, name.partition("~")[2])
    assert store.list_pools() == []
    assert not remove_credential(redis, name, name.partition("~")[2])
    ours, _ = Credentials(redis).add("default", "ours")
    assert remove_credential(redis, "default", ours)


def test_the_processes_share_out_all_of_them_as_if_they_were_one_pool(store: PrivateCredentials, redis: Redis):
    settings = Settings(pools=POOLS)
    both = [Membership(redis, name, settings) for name in ("a", "b")]
    Credentials(redis).import_lines("default", ["one", "two", "three"])
    names = {store.add("default", f"private-{i}", 9) for i in range(6)}
    store.add("other", "its pool takes none", 9)
    for _ in range(2):
        for one in both:
            one.refresh([])
    assert [sorted(one.pools_in_group(PRIVATE_GROUP)) for one in both] == [sorted(names)] * 2
    assert sum(one.fair_share("default") for one in both) == 3
    assert [one.fair_share(PRIVATE_GROUP) for one in both] == [3, 3]


# The front's side


class Endpoint:
    """Errands that are done here."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.tried: list[str] = []
        self.good: set[str] = set()
        self.is_down = False
        self.is_silent = False

    def request(self, operation: CredentialOperation, timeout: float) -> dict[str, object]:
        self.tried.append(operation.pool)
        if self.is_down:
            return {"ok": False, "error": "down"}
        if len(self.tried) > len(self.good) and "*" not in self.good:
            Credentials(self.redis).set_state(operation.pool, operation.credential_id, "dead", "invalid_grant")
            return {"ok": False, "error": "refused"}
        self.redis.hset(keys.credential(operation.credential_id), "refreshed_at", time.time())
        if self.is_silent:
            raise NoWorkerProcess("not in time")
        return {"ok": True}


@pytest.fixture
def endpoint(redis: Redis, unsealer: Unsealer) -> Endpoint:
    return Endpoint(redis)


def callers(redis: Redis, endpoint: Endpoint, *pools: PoolSettings) -> PrivateCallers:
    """A front that knows nothing yet."""
    made = PrivateCallers(redis, pools or POOLS)
    made._operations = endpoint  # type: ignore[assignment]
    return made


def code(front: PrivateCallers, token: str, address: str = "192.0.2.1", pool: str = "") -> str:
    with pytest.raises(ApiError) as found:
        front.authenticate(token, address, pool)
    return found.value.code


def test_a_good_token_is_tried_once_by_all_fronts(redis: Redis, endpoint: Endpoint):
    endpoint.good.add("*")
    found = [callers(redis, endpoint).authenticate("a-token", "192.0.2.1", "") for _ in range(3)]
    assert len({(one.id, one.pool) for one in found}) == 1
    assert endpoint.tried == [found[0].pool]


def test_wrong_ones_are_counted_by_network_and_not_tried_twice(redis: Redis, endpoint: Endpoint):
    front = callers(redis, endpoint)
    assert [code(front, "wrong-0", "2001:db8::1") for _ in range(3)] == ["invalid_refresh_token"] * 3
    assert len(endpoint.tried) == 1
    assert {code(front, f"wrong-{i}", f"2001:db8::{i}") for i in range(1, 5)} == {"invalid_refresh_token"}
    assert code(callers(redis, endpoint), "wrong-5", "2001:db8::9") == "too_many_tokens"
    assert code(front, "wrong-5", "2001:db8:0:1::9") == "invalid_refresh_token"
    assert PrivateCredentials(redis).list_pools() == []


def test_an_endpoint_that_is_down_blames_nobody_and_the_token_is_kept_a_minute(redis: Redis, endpoint: Endpoint):
    endpoint.is_down = True
    front = callers(redis, endpoint)
    assert {code(front, "a-token") for _ in range(9)} == {"token_not_tried"}
    assert {code(front, f"another-{i}") for i in range(4)} == {"token_not_tried"}
    assert code(front, "one too many") == "too_many_tokens"
    store, idle = PrivateCredentials(redis), POOLS[0].private_idle
    (name, *_) = endpoint.tried
    assert store.forget_idle(lambda _: idle) == []
    assert name in store.forget_idle(lambda _: idle - 61)
    endpoint.is_down = False
    endpoint.good.add("*")
    assert front.authenticate("a-token", "192.0.2.1", "").pool.startswith("default~")


def test_a_token_whose_trial_was_not_answered_in_time_but_that_was_taken_is_good(redis: Redis, endpoint: Endpoint):
    endpoint.good.add("*")
    endpoint.is_silent = True
    assert callers(redis, endpoint).authenticate("a-token", "192.0.2.1", "").pool == endpoint.tried[0]


def test_the_operators_word_and_death_are_told(redis: Redis, endpoint: Endpoint):
    endpoint.good.add("*")
    made = callers(redis, endpoint).authenticate("a-token", "192.0.2.1", "")
    credential = made.pool.partition("~")[2]
    Credentials(redis).set_state(made.pool, credential, "disabled", "by a person")
    assert code(callers(redis, endpoint), "a-token") == "private_credential_disabled"
    Credentials(redis).enable(made.pool, credential)
    Credentials(redis).set_state(made.pool, credential, "dead", "invalid_grant")
    assert code(callers(redis, endpoint), "a-token") == "invalid_refresh_token"


def test_a_token_is_tried_at_the_pool_that_its_caller_names_and_at_no_other(redis: Redis, endpoint: Endpoint):
    endpoint.good.add("*")
    two = tuple(PoolSettings(name=name, private_credentials=True) for name in ("one", "two"))
    front = callers(redis, endpoint, *two)
    assert code(front, "a-token") == code(front, "a-token", pool="three") == "private_pool_needed"
    assert front.authenticate("a-token", "192.0.2.1", "two").pool.startswith("two~")
    assert all(one.startswith("two~") for one in endpoint.tried)


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
def test_what_can_not_be_a_refresh_token_is_none(redis: Redis, endpoint: Endpoint, token: str, takes: bool):
    assert callers(redis, endpoint).may_be_token(token) is takes
    assert not PrivateCallers(redis, (PoolSettings(),)).may_be_token(token)


def test_an_api_key_is_one_whatever_it_looks_like(redis: Redis, endpoint: Endpoint):
    api_keys = ApiKeys(redis)
    api_keys.create_if_missing("a-key-of-the-operator", "scripted")
    front = Authenticator(api_keys, callers(redis, endpoint))
    assert front.authenticate("Bearer a-key-of-the-operator", "192.0.2.1").name == "scripted"
    assert endpoint.tried == []


@pytest.mark.parametrize(
    ("address", "found"),
    [("192.0.2.7", "192.0.2.7/32"), ("2001:db8::7", "2001:db8::/64"), ("::ffff:192.0.2.7", "192.0.2.7/32"), ("", "?")],
)
def test_who_has_an_address_of_ipv6_has_a_whole_network_of_them(address: str, found: str):
    assert caller_network(address) == found
