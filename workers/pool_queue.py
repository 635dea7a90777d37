"""One pool's RQ queue in a worker process: its books, what is recovered of it and how RQ cleans it."""

from redis import Redis
from rq import Queue, worker_registration
from rq.registry import clean_registries

from shared import keys
from shared.counters import Counters
from shared.pipeline import Pipeline
from shared.queue import rq_queue
from workers.bookkeeping import Bookkeeping
from workers.recovery import Intermediate, Orphans


class PoolQueue:
    """The queue of one pool."""

    def __init__(self, redis: Redis, pipeline: Pipeline, pool: str, max_attempts: int, counters: Counters) -> None:
        self._redis = redis
        self.queue = rq_queue(redis, keys.chat_queue(pool))
        self.bookkeeping = Bookkeeping(redis, self.queue, pool, pipeline)
        self.orphans = Orphans(redis, self.queue, self.bookkeeping, max_attempts, counters)
        self._intermediate = Intermediate(redis, self.queue, counters)

    def show(self) -> None:
        """RQ knows a queue from its first job on; people want to see an empty one too."""
        self._redis.sadd(Queue.redis_queues_keys, self.queue.key)

    def recover(self) -> None:
        """Finds the jobs of workers that died."""
        self._intermediate.look()
        self.orphans.look()

    def clean(self) -> None:
        """RQ's own cleaning of registries, in one process of all at a time."""
        if self.queue.acquire_maintenance_lock():
            clean_registries(self.queue, [])
            worker_registration.clean_worker_registry(self.queue)
            self.queue.release_maintenance_lock()
