"""Each waiting request counts in its own band, wherever RQ's queues list it."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.protocol.queue_depths import MAX_KEYS, request_depths
from shared.protocol.relay_queue import queue_keys
from tests.integration.workers.jobs.simulated_pool import SimulatedPool


@pytest.fixture
def pool(redis: Redis) -> SimulatedPool:
    redis.hset(keys.credentials("default"), mapping={"c1": "active", "c2": "active"})
    return SimulatedPool(redis)


def read(pool: SimulatedPool, most_keys: int = MAX_KEYS) -> tuple[int, int]:
    """Interactive and batch requests."""
    with pool.redis.pipeline(transaction=False) as pipe:
        request_depths(pipe, ["other", pool.name], most_keys)
        ((other, (interactive, batch)),) = pipe.execute()
    assert other == [0, 0]
    return interactive, batch


def read_lengths(pool: SimulatedPool) -> tuple[int, int]:
    """Of RQ's queues."""
    interactive, batch = (int(pool.redis.llen(queue)) for queue in queue_keys(pool.name))
    return interactive, batch


@pytest.mark.parametrize("most_keys", [MAX_KEYS, 1, 0])
def test_request_that_waits_for_another_account_counts_in_its_band(pool: SimulatedPool, most_keys: int):
    """Also when too many keys have requests of the batch band, or of both."""
    failed, _ = pool.enqueue("a", 2)
    pool.enqueue("b", 1, band="batch")
    pool.enqueue("c", 1, band="batch")
    first, second = pool.worker(1), pool.worker(2)
    assert first.start() == failed
    first.requeue()
    assert (read(pool, most_keys), read_lengths(pool)) == ((2, 2), (1, 3))
    assert second.start() == failed
    second.finish_and_start()
    second.finish_and_start()
    second.requeue()
    assert read(pool, most_keys) == read_lengths(pool) == (0, 2)


@pytest.mark.parametrize("most_keys", [MAX_KEYS, 1])
def test_batch_requests_that_came_while_a_worker_was_idle_count_as_batch(pool: SimulatedPool, most_keys: int):
    worker = pool.worker(1)
    assert not worker.start()
    pool.enqueue("b", 2, band="batch")
    pool.enqueue("c", 2, band="batch")
    assert (read(pool), read_lengths(pool)) == ((0, 4), (4, 0))
    assert read(pool, -1) == (4, 0), "more keys are looked at than may be"
    worker.start()
    pool.enqueue("a", 1)
    pool.enqueue("c", 1, band="batch")
    assert (read(pool, most_keys), read_lengths(pool)) == ((1, 4), (4, 1))


@pytest.mark.parametrize("most_keys", [MAX_KEYS, -1])
def test_requests_set_aside_count_in_their_band(pool: SimulatedPool, most_keys: int):
    until = time.time() + 600
    pool.redis.hset(keys.resting_models("c1"), "A", until)
    pool.redis.zadd(keys.resting_by_pool("default"), {"A": until})
    pool.enqueue("a", 3, model="A")
    pool.enqueue("b", 1, band="batch", model="A")
    assert not pool.worker(1).start()
    assert pool.redis.zcard(keys.set_aside("default", "interactive")) == 3
    assert (read(pool, most_keys), read_lengths(pool)) == ((3, 1), (0, 4))


def test_jobs_of_others_count_as_interactive(pool: SimulatedPool):
    for queue in queue_keys(pool.name):
        pool.redis.rpush(queue, "a-job")
    assert read(pool) == (2, 0)


def test_queue_that_somebody_has_emptied_is_not_below_zero(pool: SimulatedPool):
    pool.enqueue("a", 1)
    pool.enqueue("b", 2, band="batch")
    pool.redis.delete(*queue_keys(pool.name))
    assert read(pool) == (0, 0)
