"""What the farm's state in Redis is to the batches of some pools."""

from redis import Redis

from shared import clock, keys
from shared.settings.schema import PoolSettings
from web.batches.progress.hindrance import FarmState, read_farm_state


def test_pools_hinder_a_batch_if_none_of_them_takes_requests(redis: Redis):
    pools = [PoolSettings(name="a", slots=2), PoolSettings(name="b")]
    redis.zadd(keys.PROCESSES, {"p": clock.now()})
    redis.hset(keys.credentials("a"), mapping={"c1": "active", "c2": "cooling"})
    redis.hset(keys.credentials("b"), "c3", "dead")
    assert read_farm_state(redis, pools) == FarmState(accounts={"a": 2, "b": 0})
    assert read_farm_state(redis, pools[::-1]).pool_hindrance == ""
    redis.hset(keys.breaker("a"), "reason", "timeout")
    assert read_farm_state(redis, pools) == FarmState({"a": 2, "b": 0}, "upstream_down")
    redis.delete(keys.PROCESSES)
    assert read_farm_state(redis, pools).pool_hindrance == "no_worker_process"
    redis.set(keys.paused("a"), "{}")
    assert read_farm_state(redis, pools).pool_hindrance == "pool_paused"
    assert read_farm_state(redis, []).accounts == {}


def test_trouble_of_the_store_of_files_is_told(redis: Redis):
    for state, expected in (("full", "file_store_full"), ("away", "file_store_away"), ("unheard of", "")):
        redis.hset(keys.FILE_STORE_TROUBLE, "state", state)
        assert read_farm_state(redis, []).store_hindrance == expected
