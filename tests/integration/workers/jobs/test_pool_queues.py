"""Which pools' queues a worker process looks after."""

from redis import Redis

from shared.observability.counters import Counters
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.settings.schema import Settings
from workers.jobs.pool_queues import BusyPools, PoolQueues


def test_only_pools_with_jobs_are_looked_after_and_once_more_when_these_are_gone(redis: Redis):
    """The look at which a suspect is gone matters too: it may come back, as another worker's job."""
    pools = [PoolQueues(redis, AutoPipeline(redis), name, Settings(), Counters()) for name in ("a~1", "a~2", "a~3")]
    busy = BusyPools(redis)
    assert busy.find(pools) == []
    redis.zadd("rq:wip:batch:a~2", {"req_1:execution": 1})
    redis.lpush("rq:queue:chat:a~3:intermediate", "req_2")
    assert busy.find(pools) == pools[1:]
    redis.delete("rq:wip:batch:a~2", "rq:queue:chat:a~3:intermediate")
    assert [busy.find(pools), busy.find(pools)] == [pools[1:], []]
