from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError

from shared.observability.counters import Counters
from shared.protocol.relay_queue import rq_queue
from shared.redis_connection.client import connect, lone_connections
from tests.waiting import eventually
from workers.jobs.orphan_recovery import Intermediate
from workers.worker.blocking_pop import WaitingLine


@pytest.fixture
def line(redis_url: str, redis: Redis) -> Iterator[WaitingLine]:
    made = WaitingLine(lone_connections(redis_url), "rq:queue:q", "rq:queue:q:intermediate")
    yield made
    made.close()


def test_a_job_is_moved_and_never_only_popped(redis: Redis, line: WaitingLine):
    redis.rpush("rq:queue:q", "one", "two")
    assert line.next_job(1) == "one"
    assert redis.lrange("rq:queue:q:intermediate", 0, -1) == [b"one"]


def test_nothing_in_time_is_none(line: WaitingLine):
    assert line.next_job(0.05) is None


def test_a_wait_is_ended_from_outside(redis_url: str, line: WaitingLine):
    line.next_job(0.01)
    helper = connect(redis_url)
    done = gevent.spawn(eventually, lambda: helper.client_unblock(line.client_id))
    assert line.next_job(30) is None
    assert done.get()


def test_a_broken_connection_is_an_error_and_the_next_wait_opens_a_new_one(redis: Redis, line: WaitingLine):
    line.next_job(0.01)
    redis.client_kill_filter(_id=str(line.client_id))
    with pytest.raises((RedisError, OSError)):
        line.next_job(0.05)
    assert line.client_id == 0
    redis.rpush("rq:queue:q", "one")
    assert line.next_job(1) == "one"


def test_a_job_that_was_popped_and_never_begun_comes_back_to_the_front(redis: Redis):
    queue = rq_queue(redis, "q")
    for job_id in ("lost", "gone"):
        redis.rpush(queue.intermediate_queue_key, job_id)
    redis.hset("rq:job:lost", "status", "queued")
    redis.rpush(queue.key, "other")
    watcher = Intermediate(redis, queue, Counters())
    assert watcher.look() == 0
    assert watcher.look() == 1
    assert redis.lrange(queue.key, 0, -1) == [b"lost", b"other"]
    assert redis.llen(queue.intermediate_queue_key) == 0
