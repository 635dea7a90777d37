"""Private credentials are sealed, bounded per pool, and forgotten when idle."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.credentials.private import PrivateCredentials, caller_id, list_all_pools, remove_credential
from shared.credentials.removal import read_removal
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> PrivateCredentials:
    return PrivateCredentials(redis)


def test_token_that_is_added_twice_is_one_sealed_credential(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    assert store.add("default", "a-token", 2) == name
    assert store.list_pools() == [name]
    token = store.find("default", "a-token")
    assert token is not None
    assert (token.pool, token.state, token.is_proven) == (name, "active", False)
    assert store.find("other", "a-token") is None
    sealed = redis.hget(keys.credential(token.credential_id), "sealed")
    assert sealed and b"a-token" not in sealed


def test_private_credentials_are_bounded_per_pool(store: PrivateCredentials):
    assert all([store.add("default", "one", 2), store.add("default", "two", 2), store.add("other", "one", 1)])
    assert store.add("default", "three", 2) == ""
    assert (store.count_by_pool()["default"], store.count_by_pool()["other"]) == (2, 1)


def test_credential_is_either_private_or_the_pools(store: PrivateCredentials, redis: Redis):
    credentials = Credentials(redis)
    credential_id, _ = credentials.add("default", "ours")
    assert store.add("default", "ours", 2) == "default"
    name = store.add("default", "theirs", 2)
    report = credentials.import_lines("default", ["theirs"])
    assert report.count("duplicate") == 1
    assert list(credentials.get_states("default")) == [credential_id]
    assert list_all_pools(redis, ["default"]) == ["default", name]
    assert list_all_pools(redis, ["other"]) == ["other"]


def test_idle_credential_is_forgotten_completely_and_a_busy_one_is_not(store: PrivateCredentials, redis: Redis):
    before = set(redis.scan_iter())
    name = store.add("default", "a-token", 2)
    queue = RelayQueue(redis, 10)
    queue.enqueue(build_request("req_1", pool=name, key="private-x"), b"{}")
    redis.zadd(keys.PRIVATE_POOLS, {name: time.time() - 100})
    redis.set(keys.served_jobs(name), 1)
    redis.zadd(f"rq:failed:batch:{name}", {"req_2": 1})
    for workers in ("rq:workers", f"rq:workers:chat:{name}"):
        redis.sadd(workers, "rq:worker:of-a-dead-process")
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
    assert set(redis.scan_iter()) - {b"farm:body-sums"} == before  # sums over all pools
    store.touch(name)
    assert store.list_pools() == []


@pytest.mark.parametrize("state", ["disabled", "foreign"])
def test_credential_out_of_service_is_not_forgotten(store: PrivateCredentials, redis: Redis, state):
    name = store.add("default", "a-token", 2)
    Credentials(redis).set_state(name, name.partition("~")[2], state, "by a person")
    redis.zadd(keys.PRIVATE_POOLS, {name: 1})
    assert store.forget_idle(lambda _: 60) == []
    assert store.forget(name)


def test_caller_of_an_unfinished_batch_is_not_idle(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    batches = keys.active_batches(caller_id(name.partition("~")[2]))
    redis.sadd(batches, "batch_1")
    redis.zadd(keys.PRIVATE_POOLS, {name: 1})
    assert store.forget_idle(lambda _: 60) == []
    redis.srem(batches, "batch_1")
    assert store.forget_idle(lambda _: 60) == []
    redis.zadd(keys.PRIVATE_POOLS, {name: 1})
    assert store.forget_idle(lambda _: 60) == [name]


def test_operator_may_remove_the_credential_of_an_unfinished_batch(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    batches = keys.active_batches(caller_id(name.partition("~")[2]))
    redis.sadd(batches, "batch_1")
    assert store.forget(name)
    assert redis.exists(batches)


def test_private_credential_is_removed_like_any_other(store: PrivateCredentials, redis: Redis):
    name = store.add("default", "a-token", 2)
    private_id = name.partition("~")[2]
    assert remove_credential(redis, name, private_id, "token a")
    assert store.list_pools() == []
    assert not remove_credential(redis, name, private_id, "token b")
    credential_id, _ = Credentials(redis).add("default", "ours", "spare")
    assert remove_credential(redis, "default", credential_id, "token c")
    known = {id_: read_removal(redis, id_) for id_ in (private_id, credential_id)}
    assert [(each.name, each.pool, each.by) for each in known.values() if each] == [
        ("", name, "token a"),
        ("spare", "default", "token c"),
    ]
    assert read_removal(redis, "nothing") is None
