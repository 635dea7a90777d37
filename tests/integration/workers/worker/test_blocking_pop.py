"""Idle workers block in Redis until a job is moved to them."""

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError

from shared.redis_connection.client import connect, create_dedicated_pool
from tests.half_open_relay import run_half_open_relay
from tests.waiting import eventually
from workers.worker.blocking_pop import BlockingPop


@pytest.fixture
def blocking_pop(redis_url: str, redis: Redis) -> Iterator[BlockingPop]:
    blocking_pop = BlockingPop(create_dedicated_pool(redis_url), "rq:queue:q", "rq:queue:q:intermediate")
    yield blocking_pop
    blocking_pop.close()


def test_pop_moves_the_job_to_the_intermediate_queue(redis: Redis, blocking_pop: BlockingPop):
    redis.rpush("rq:queue:q", "one", "two")
    assert blocking_pop.pop(1) == "one"
    assert redis.lrange("rq:queue:q:intermediate", 0, -1) == [b"one"]


def test_pop_returns_none_when_it_times_out(blocking_pop: BlockingPop):
    assert blocking_pop.pop(0.05) is None


def test_pop_can_be_unblocked_by_another_connection(redis_url: str, blocking_pop: BlockingPop):
    blocking_pop.pop(0.01)
    other = connect(redis_url)
    unblocked = gevent.spawn(eventually, lambda: other.client_unblock(blocking_pop.client_id))
    assert blocking_pop.pop(30) is None
    assert unblocked.get()


def test_job_does_not_go_to_a_connection_that_only_redis_still_holds(redis: Redis, redis_url: str):
    with run_half_open_relay(redis_url.removeprefix("unix://")) as relay:
        blocking_pop = BlockingPop(create_dedicated_pool(relay.url), "rq:queue:q", "rq:queue:q:intermediate")
        lost = gevent.spawn(blocking_pop.pop, 30)
        eventually(lambda: redis.info("clients")["blocked_clients"])
        relay.drop_clients()
        with pytest.raises(RedisError):
            lost.get(timeout=30)
        assert redis.info("clients")["blocked_clients"] == 1
        blocking_pop.pop(0.01)
        redis.rpush("rq:queue:q", "one")
        assert blocking_pop.pop(1) == "one"
        blocking_pop.close()


def test_pop_reconnects_after_an_error(redis: Redis, blocking_pop: BlockingPop):
    blocking_pop.pop(0.01)
    redis.client_kill_filter(_id=str(blocking_pop.client_id))
    with pytest.raises(RedisError):
        blocking_pop.pop(0.05)
    assert blocking_pop.client_id == 0
    redis.rpush("rq:queue:q", "one")
    assert blocking_pop.pop(1) == "one"
