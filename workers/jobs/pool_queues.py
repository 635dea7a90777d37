"""A pool's RQ queues in a worker process: bookkeeping, orphan recovery and registry cleaning."""

from collections.abc import Collection

from redis import Redis
from rq import Queue, worker_registration
from rq.registry import FailedJobRegistry, StartedJobRegistry, clean_registries
from rq.worker import BaseWorker

from shared.observability.counters import Counters
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.settings.schema import Settings
from workers.jobs.orphan_recovery import IntermediateQueueMonitor, OrphanRecovery
from workers.jobs.rq_bookkeeping import BatchPolicy, Bookkeeping


class PoolQueues:
    """The queues of one pool, one per band."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline, pool: str, settings: Settings, counters: Counters) -> None:
        self._redis = redis
        batch_policy = BatchPolicy(settings.batch_age, settings.batch_turns)
        self.bookkeeping = Bookkeeping(redis, pool, pipeline, batch_policy, settings.queue_timeout)
        self._queues = self.bookkeeping.queues
        max_attempts = settings.max_attempts
        self._recoveries = [
            OrphanRecovery(redis, self.bookkeeping, band, max_attempts, counters) for band in self._queues
        ]
        registries = [
            kind(queue=queue).key for kind in (StartedJobRegistry, FailedJobRegistry) for queue in self._queues.values()
        ]
        #: What recovery and cleaning look into.
        self.job_keys = [self._queues["interactive"].intermediate_queue_key, *registries]
        self._intermediate_monitor = IntermediateQueueMonitor(redis, self._queues["interactive"], counters)

    def register(self) -> None:
        """Adds the queues to RQ's set, which RQ itself does only at a queue's first job; dashboards show them empty."""
        self._redis.sadd(Queue.redis_queues_keys, *(queue.key for queue in self._queues.values()))

    def recover_from_predecessor(self, worker: BaseWorker) -> None:
        """Requeues or ends the jobs of the previous worker of that name; to be called before it starts one."""
        self._recoveries[0].recover_from_predecessor(worker)

    def recover_orphans(self) -> None:
        self._intermediate_monitor.put_back_stuck()
        for recovery in self._recoveries:
            recovery.recover()

    def clean_registries(self) -> None:
        """Runs RQ's own maintenance, under its lock: in one process at a time."""
        for queue in self._queues.values():
            if queue.acquire_maintenance_lock():
                clean_registries(queue, [])
                worker_registration.clean_worker_registry(queue)
                queue.release_maintenance_lock()


class BusyPools:
    """Which of many pools have jobs to look after: a look at each one's queues costs several round trips."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._busy_before: set[PoolQueues] = set()

    def find(self, pools: Collection[PoolQueues]) -> list[PoolQueues]:
        """Those that have any, or had some at the last look: what recovery has seen twice in a row is orphaned."""
        with self._redis.pipeline(transaction=False) as pipe:
            for queues in pools:
                pipe.exists(*queues.job_keys)
            busy = {queues for queues, count in zip(pools, pipe.execute(), strict=True) if count}
        wanted, self._busy_before = busy | self._busy_before, busy
        return [queues for queues in pools if queues in wanted]
