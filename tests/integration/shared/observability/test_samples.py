"""Samples are taken once by any number of processes, and read as intervals."""

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.observability.samples import STEPS, Samples


@pytest.fixture
def samples(redis: Redis) -> Samples:
    return Samples(redis)


def set_back(redis: Redis, step: int) -> None:
    """Makes the latest sample one step older, as if that time had passed."""
    ((id_, fields),) = redis.xrevrange(keys.samples(step), count=1)
    redis.delete(keys.samples(step))
    redis.xadd(keys.samples(step), fields, id=f"{int(id_.partition(b'-')[0]) - 1000 * step}-0")


def test_second_process_takes_no_sample_of_the_same_slot(redis: Redis, samples: Samples):
    for _ in range(3):
        samples.take(["default"])
        Samples(redis).take(["default"])
    # A slot may have ended meanwhile.
    assert all(redis.xlen(keys.samples(step)) <= 2 for step in STEPS)
    slots = [int(id_.partition(b"-")[0]) for id_, _ in redis.xrange(keys.samples(5))]
    assert all(slot % 5000 == 0 for slot in slots)


def test_interval_has_what_was_counted_in_it(redis: Redis, samples: Samples):
    counters = Counters()
    counters.increment("requests", "default", "/chat/completions", "200", amount=7)
    counters.flush(redis)
    samples.take(["default"])
    set_back(redis, 5)
    counters.increment("requests", "default", "/chat/completions", "200", amount=3)
    counters.increment("requests", "default", "/embeddings", "429")
    counters.increment("account_seconds", "default", "idle_waiting", amount=1.25)
    counters.observe("queue_wait_seconds", 0.3)
    counters.flush(redis)
    redis.rpush("rq:queue:chat:default", "req_1")
    # Another process, which has not looked for this slot yet.
    Samples(redis).take(["default"])
    *_, interval = samples.read(5, 0.0, float("inf"))
    pool = interval.pools["default"]
    assert (pool.finished, pool.failed, pool.waiting, pool.arrived) == (4, 1, 1, 5)
    assert pool.account_seconds == {"idle_waiting": 1.25}
    assert interval.statuses == {"200": 3, "429": 1}
    assert 0.25 <= (interval.queue_wait["p50"] or 0) <= 0.5
    assert list(samples.read(5, interval.time + 1, float("inf"))) == []
    assert list(samples.read(5, interval.time, float("inf"))) == [interval]
    assert list(samples.read(5, 0.0, 1.0)) == []
