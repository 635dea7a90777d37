"""One pool's RQ queues in a worker process: their books, what is recovered of them and how RQ cleans them."""

from redis import Redis
from rq import Queue, worker_registration
from rq.registry import clean_registries
from rq.worker import BaseWorker

from shared.observability.counters import Counters
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.settings.schema import Settings
from workers.jobs.orphan_recovery import IntermediateQueueMonitor, OrphanRecovery
from workers.jobs.rq_bookkeeping import BatchPolicy, Bookkeeping


class PoolQueues:
    """The queues of one pool, one for each band."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline, pool: str, settings: Settings, counters: Counters) -> None:
        self._redis = redis
        self.bookkeeping = Bookkeeping(redis, pool, pipeline, BatchPolicy(settings.batch_age, settings.batch_turns))
        self._queues = self.bookkeeping.queues
        max_attempts = settings.max_attempts
        self._orphans = [OrphanRecovery(redis, self.bookkeeping, band, max_attempts, counters) for band in self._queues]
        self._intermediate = IntermediateQueueMonitor(redis, self._queues["interactive"], counters)

    def register(self) -> None:
        """RQ knows a queue from its first job on; people want to see an empty one too."""
        self._redis.sadd(Queue.redis_queues_keys, *(queue.key for queue in self._queues.values()))

    def recover_from_predecessor(self, worker: BaseWorker) -> None:
        """Ends what the last worker of that name left; called before it begins anything."""
        self._orphans[0].recover_from_predecessor(worker)

    def recover(self) -> None:
        """Finds the jobs of workers that died."""
        self._intermediate.put_back_stuck()
        for orphans in self._orphans:
            orphans.recover()

    def clean(self) -> None:
        """RQ's own cleaning of registries, in one process of all at a time."""
        for queue in self._queues.values():
            if queue.acquire_maintenance_lock():
                clean_registries(queue, [])
                worker_registration.clean_worker_registry(queue)
                queue.release_maintenance_lock()
