"""Recovers the orphaned jobs of dead workers (I11): popped but not started, or started but not finished.

If the reply has not started and attempts are left, the job is requeued at the front and the attempt counted. Otherwise
the caller gets an error. What tells an orphan is the lease under which its execution was started, kept with it: RQ's
own records of a worker expire within minutes.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.worker import BaseWorker, Worker

from shared import keys, names
from shared.observability.counters import Counters
from shared.protocol.job_data import decode_request
from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.protocol.relay_queue import BAND_FIELD
from shared.redis_connection.client import register_script
from workers.jobs.job_records import StartedJob, lost_request_cost, unreadable_failure
from workers.jobs.rq_bookkeeping import Bookkeeping, FailedAttempt
from workers.parallel import run_in_parallel

log = logging.getLogger("farm.recovery")
AnyWorker = TypeVar("AnyWorker", bound=BaseWorker)


class IntermediateQueueMonitor:
    """Watches a queue's intermediate queue. A job found there twice in a row was popped by a worker that then died."""

    def __init__(self, redis: Redis, queue: Queue, counters: Counters) -> None:
        self._redis = redis
        self._queue = queue
        self._counters = counters
        self._seen: set[str] = set()
        self._put_back_script = register_script(redis, Path(__file__).with_name("unstick.lua"))

    def put_back_stuck(self) -> int:
        """Puts stuck jobs back into their queue; returns how many."""
        job_ids = {job_id.decode() for job_id in self._redis.lrange(self._queue.intermediate_queue_key, 0, -1)}
        stuck = job_ids & self._seen
        self._seen = job_ids - stuck
        queue_keys = (self._queue.intermediate_queue_key, self._queue.key)
        results = [self._put_back_script(keys=[*queue_keys, Job.key_for(job_id)], args=[job_id]) for job_id in stuck]
        for job_id in stuck:
            self._counters.increment("orphans", "put_back")
            log.warning("job put back", extra={"action": "orphan_found", "request_id": job_id, "reason": "popped"})
        return sum(cast("list[int]", results))


def find_workers_with_jobs(redis: Redis, workers: Sequence[AnyWorker]) -> list[AnyWorker]:
    """Those whose predecessors of the same name have left jobs, in one round trip."""
    with redis.pipeline(transaction=False) as pipe:
        for worker in workers:
            pipe.exists(worker.executions_key)
        return [worker for worker, exists in zip(workers, pipe.execute(), strict=True) if exists]


class Owner(NamedTuple):
    """Who started an execution."""

    #: Name of the RQ worker, '' when the execution is gone.
    worker: str
    #: Value of the lease that the worker held then; None when another version of the farm, or RQ itself, started it.
    lease: bytes | None

    def is_alive(self, present_lease: bytes | None) -> bool:
        """Whether it still holds the credential, given the lease's present value. A successor's lease is another one,
        even in the same process: its fencing token is higher.
        """
        return present_lease is not None and self.lease in (None, present_lease)


class OrphanRecovery:
    """Requeues or ends the executions of one band whose worker has died."""

    def __init__(
        self, redis: Redis, bookkeeping: Bookkeeping, band: str, max_attempts: int, counters: Counters
    ) -> None:
        self._redis = redis
        self._queue = queue = bookkeeping.queues[band]
        self._bookkeeping = bookkeeping
        self._max_attempts = max_attempts
        self._counters = counters
        self._registry_key = StartedJobRegistry(queue=queue).key
        self._suspects: set[str] = set()
        #: Execution -> who started it, for all executions found by the last `recover`.
        self._owners: dict[str, Owner] = {}

    def recover_from_predecessor(self, worker: BaseWorker) -> int:
        """Recovers the executions of the previous worker of this name, in both bands; returns how many.

        To be called before the new worker, which holds the credential's lease, starts a job.
        """
        executions = worker.get_current_executions(refresh=True)
        worker._executions = []
        for execution in executions:
            self._requeue_or_end(worker, execution)
        return len(executions)

    def recover(self) -> int:
        """Recovers executions whose worker had lost its lease at this look and the last one; returns how many."""
        composite_keys = [key.decode() for key in self._redis.zrange(self._registry_key, 0, -1)]
        owners = self._owners = self._find_owners(composite_keys)
        lease_keys = [keys.lease(names.credential_id_of(owner.worker)) for owner in owners.values()]
        lease_values = self._redis.mget(lease_keys) if lease_keys else []
        unowned = {
            composite
            for (composite, owner), lease in zip(owners.items(), lease_values, strict=True)
            if not owner.is_alive(lease)
        }
        orphans = unowned & self._suspects
        self._suspects = unowned - orphans
        run_in_parallel(partial(self._recover_orphan, composite, owners[composite].worker) for composite in orphans)
        return len(orphans)

    def _recover_orphan(self, composite_key: str, worker_name: str) -> None:
        execution = Execution.from_composite_key(composite_key, self._redis)
        worker = Worker([self._queue], name=worker_name, connection=self._redis, prepare_for_work=False)
        self._requeue_or_end(worker, execution)

    def _find_owners(self, composite_keys: list[str]) -> dict[str, Owner]:
        """Execution -> who started it. That never changes, so only new executions are looked up."""
        new_keys = [key for key in composite_keys if key not in self._owners]
        with self._redis.pipeline(transaction=False) as pipe:
            for key in new_keys:
                pipe.hmget(f"{RQ_KEY_PREFIX}:execution:{key}", "worker_name", "farm_lease")
            new_owners = {
                key: Owner((name or b"").decode(), lease)
                for key, (name, lease) in zip(new_keys, pipe.execute(), strict=True)
            }
        owners = self._owners | new_owners
        return {key: owners[key] for key in composite_keys}

    def _requeue_or_end(self, worker: BaseWorker, execution: Execution) -> None:
        fields = ("data", "number_of_retries", "farm_begun", BAND_FIELD)
        data, retries, has_started, band = self._redis.hmget(Job.key_for(execution.job_id), fields)
        request = decode_request(data) if data else None
        band = band.decode() if band else "interactive"
        retries = int(retries or 0)
        orphan = StartedJob(execution.job_id, execution, retries, 0, request, None, band)
        is_retried = request is not None and not has_started and retries + 1 < self._max_attempts
        if is_retried:
            failure = Failure(499, "client_gone", "the caller has gone", "server_error", retries + 1)
            attempt = FailedAttempt.of_orphan(names.credential_id_of(worker.name))
            entry = lost_request_cost(request, failure).entry if request else ""
            self._bookkeeping.requeue(worker, orphan, attempt, entry)
        else:
            self._end(worker, orphan)
        reason = "requeued" if is_retried else "ended"
        self._counters.increment("orphans", reason)
        extra = {"action": "orphan_found", "request_id": orphan.job_id, "worker": worker.name, "reason": reason}
        log.warning("orphan %s", reason, extra=extra)

    def _end(self, worker: BaseWorker, orphan: StartedJob) -> None:
        """Ends the job and tells its caller."""
        if orphan.request is None:
            unreadable = self._bookkeeping.describe_unreadable(orphan.job_id)
            failure, channel, cost = unreadable_failure(orphan.retries + 1), unreadable.channel, unreadable.cost
        else:
            message = "the worker that ran this request died"
            failure = Failure(502, "worker_lost", message, "server_error", orphan.retries + 1)
            channel, cost = orphan.request.channel, lost_request_cost(orphan.request, failure)
        if self._bookkeeping.finish(worker, orphan, ok=False, cost=cost) and channel:
            self._redis.publish(channel, Frame(FrameKind.FAILURE, OUT_OF_BAND, failure.encode()).encode())
