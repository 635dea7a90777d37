from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError

from shared.observability.counters import Counters
from shared.protocol.relay_queue import open_rq_queue
from shared.redis_connection.client import connect, create_dedicated_pool
from tests.waiting import eventually
from workers.jobs.orphan_recovery import IntermediateQueueMonitor
from workers.worker.blocking_pop import BlockingPop


@pytest.fixture
def line(redis_url: str, redis: Redis) -> Iterator[BlockingPop]:
    made = BlockingPop(create_dedicated_pool(redis_url), "rq:queue:q", "rq:queue:q:intermediate")
    yield made
    made.close()


def test_a_job_is_moved_and_never_only_popped(redis: Redis, line: BlockingPop):
    redis.rpush("rq:queue:q", "one", "two")
    assert line.pop(1) == "one"
    assert redis.lrange("rq:queue:q:intermediate", 0, -1) == [b"one"]


def test_nothing_in_time_is_none(line: BlockingPop):
    assert line.pop(0.05) is None


def test_a_wait_is_ended_from_outside(redis_url: str, line: BlockingPop):
    line.pop(0.01)
    helper = connect(redis_url)
    done = gevent.spawn(eventually, lambda: helper.client_unblock(line.client_id))
    assert line.pop(30) is None
    assert done.get()


def test_a_broken_connection_is_an_error_and_the_next_wait_opens_a_new_one(redis: Redis, line: BlockingPop):
    line.pop(0.01)
    redis.client_kill_filter(_id=str(line.client_id))
    with pytest.raises((RedisError, OSError)):
        line.pop(0.05)
    assert line.client_id == 0
    redis.rpush("rq:queue:q", "one")
    assert line.pop(1) == "one"


def test_a_job_that_was_popped_and_never_begun_comes_back_to_the_front(redis: Redis):
    queue = open_rq_queue(redis, "q")
    for job_id in ("lost", "gone"):
        redis.rpush(queue.intermediate_queue_key, job_id)
    redis.hset("rq:job:lost", "status", "queued")
    redis.rpush(queue.key, "other")
    watcher = IntermediateQueueMonitor(redis, queue, Counters())
    assert watcher.put_back_stuck() == 0
    assert watcher.put_back_stuck() == 1
    assert redis.lrange(queue.key, 0, -1) == [b"lost", b"other"]
    assert redis.llen(queue.intermediate_queue_key) == 0
