"""Redis hands no job to the idle workers of a process that has fallen silent (I2)."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.redis_connection.client import create_dedicated_pool
from shared.settings.schema import Settings
from tests.waiting import eventually
from workers.process.membership import Membership
from workers.process.silent_processes import SILENT_AFTER_SECONDS
from workers.worker.blocking_pop import BlockingPop

QUEUE, INTERMEDIATE = "rq:queue:q", "rq:queue:q:intermediate"


class IdleWorker:
    """A worker of the silent process that waits in BLMOVE for a job."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self.blocking_pop = BlockingPop(create_dedicated_pool(redis_url), QUEUE, INTERMEDIATE)
        self.waiting = gevent.spawn(self.blocking_pop.pop, 600)
        eventually(lambda: self.blocking_pop.client_id and redis.info("clients")["blocked_clients"])
        runner = SimpleNamespace(busy_since=0.0, seconds_worked=lambda: 0.0)
        lease = SimpleNamespace(pool="default", credential_id="a")
        fields = {"name": "default.a", "lease": lease, "runner": runner, "blocking_pop": self.blocking_pop}
        self.worker: Any = SimpleNamespace(**fields, is_registered=False, can_work=lambda: True)


@pytest.fixture
def idle_worker(redis: Redis, redis_url: str) -> Iterator[IdleWorker]:
    worker = IdleWorker(redis, redis_url)
    yield worker
    worker.waiting.kill()
    worker.blocking_pop.close()


def test_worker_of_a_silent_member_waits_no_more(redis: Redis, idle_worker: IdleWorker):
    silent, other = (Membership(redis, name, Settings()) for name in ("silent", "other"))
    silent.refresh([idle_worker.worker])
    other.refresh([])
    assert not idle_worker.waiting.ready()
    redis.zadd(keys.PROCESSES, {"silent": clock.now() - SILENT_AFTER_SECONDS - 1})
    other.refresh([])
    assert idle_worker.waiting.get(timeout=30) is None
    redis.rpush(QUEUE, "job")
    assert redis.llen(INTERMEDIATE) == 0


def test_worker_of_a_former_member_waits_no_more(redis: Redis, idle_worker: IdleWorker):
    silent, other = (Membership(redis, name, Settings()) for name in ("silent", "other"))
    silent.refresh([idle_worker.worker])
    other.refresh([])
    redis.zrem(keys.PROCESSES, "silent")
    other.refresh([])
    assert idle_worker.waiting.get(timeout=30) is None
