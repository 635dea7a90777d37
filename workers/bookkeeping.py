"""RQ's bookkeeping of a job in one round trip before and one after the upstream call; it decides nothing.

RQ's own methods take about 70 commands a job. Each script here names the methods of RQ 3.0 that it stands for, and
tests/integration/test_bookkeeping.py compares what Redis holds afterwards with what stock RQ leaves.
"""

import json
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from shared import keys
from shared.errors import LeaseLost, UpstreamDown
from shared.messages import RelayRequest
from shared.redis_client import script
from workers.leases import Lease

LUA = Path(__file__).parent / "lua"
#: Failed jobs kept per queue; older ones go first.
MOST_FAILED = 1000
#: Answers of begin.lua.
GONE, NOT_YOURS, NOT_NOW = b"gone", b"not yours", b"not now"


@dataclass
class BegunJob:
    """A job that a worker has begun."""

    job_id: str
    execution: Execution
    #: Attempts that failed before.
    retries: int
    #: Executions that the worker had already; more than its slots is a collision.
    running: int
    request: RelayRequest | None
    body: bytes | None


class Bookkeeping:
    """Begins, ends and requeues the jobs of one queue."""

    def __init__(self, redis: Redis, queue: Queue, served_key: str) -> None:
        self._redis = redis
        self._queue = queue
        self._served_key = served_key
        self._started = StartedJobRegistry(queue=queue).key
        self._begin = script(redis, LUA / "begin.lua")
        self._finish = script(redis, LUA / "finish.lua")
        self._requeue = script(redis, LUA / "requeue.lua")

    def new_execution(self, worker: BaseWorker, job_id: str) -> Execution:
        """An execution that `begin` can be asked for, again if need be."""
        return Execution(uuid.uuid4().hex, job_id, self._redis, worker.name)

    def begin(
        self, worker: BaseWorker, execution: Execution, ttl: int, lease: Lease, *, probe: bool = False
    ) -> BegunJob | None:
        """Marks the job as begun by the worker; None when it was withdrawn or put back meanwhile.

        Raises LeaseLost when the worker's lease is another's by now, UpstreamDown when the pool's breaker is open and
        this is no probe; the job is in the queue again.
        """
        job_id, at = execution.job_id, execution.created_at
        found = self._begin(
            keys=[
                Job.key_for(job_id),
                keys.body(job_id),
                self._queue.intermediate_queue_key,
                worker.key,
                worker.executions_key,
                self._started,
                execution.key,
                self._executions_key(job_id),
                lease.key,
                self._queue.key,
                keys.breaker(lease.pool),
            ],
            args=[
                job_id,
                worker.name,
                execution.id,
                utcformat(at),
                at.timestamp(),
                ttl,
                worker.worker_ttl + 60,
                lease.value,
                int(probe),
            ],
        )
        if found == NOT_NOW:
            raise UpstreamDown("the upstream is down")
        if found == NOT_YOURS:
            raise LeaseLost("the lease went to another before the job was begun")
        if found == GONE:
            return None
        data, retries, running, body = cast("list[Any]", found)
        worker.executions[execution.id] = execution
        return BegunJob(job_id, execution, int(retries), int(running), decode_request(data), body)

    def finish(self, worker: BaseWorker, begun: BegunJob, *, ok: bool) -> bool:
        """Ends the job and forgets it; False when this execution had been ended before."""
        worker.executions.pop(begun.execution.id, None)
        counter = "successful_job_count" if ok else "failed_job_count"
        done = self._finish(
            keys=[
                Job.key_for(begun.job_id),
                keys.body(begun.job_id),
                *self._running_keys(worker, begun),
                self._served_key,
            ],
            args=[begun.job_id, begun.execution.id, counter, self._worked(begun), utcformat(now())],
        )
        return bool(done)

    def requeue(self, worker: BaseWorker, begun: BegunJob, *, counts: bool = True) -> bool:
        """Puts the job to the front of the queue, its attempt counted or not; False when it is gone."""
        worker.executions.pop(begun.execution.id, None)
        done = self._requeue(
            keys=[
                Job.key_for(begun.job_id),
                self._queue.key,
                *self._running_keys(worker, begun),
                keys.body(begun.job_id),
            ],
            args=[begun.job_id, begun.execution.id, self._worked(begun), utcformat(now()), int(counts)],
        )
        return bool(done)

    def fail(self, worker: BaseWorker, begun: BegunJob, reason: str) -> None:
        """Ends the job as failed, by RQ's own method, and keeps it, without its body, for the dashboard."""
        self._redis.delete(keys.body(begun.job_id))
        job = self._queue.fetch_job(begun.job_id)
        if job is None:
            self.finish(worker, begun, ok=False)
            return
        if self._redis.zscore(self._started, begun.execution.composite_key) is None:
            return
        self._redis.incr(self._served_key)
        job.ended_at = now()
        worker.handle_job_failure(job, self._queue, exc_string=reason, execution=begun.execution)
        if self._redis.zscore(self._started, begun.execution.composite_key) is not None:
            raise RedisError("RQ could not end the job")
        worker.set_state("idle")
        self._trim()

    def _trim(self) -> None:
        """Forgets the oldest failed jobs above MOST_FAILED."""
        registry = self._queue.failed_job_registry
        surplus = registry.get_job_ids(0, -MOST_FAILED - 1, cleanup=False)
        if surplus:
            names = [name for job_id in surplus for name in (Job.key_for(job_id), Result.get_key(job_id))]
            self._redis.delete(*names)
            self._redis.zrem(registry.key, *surplus)

    def _running_keys(self, worker: BaseWorker, begun: BegunJob) -> list[str]:
        return [
            worker.key,
            worker.executions_key,
            self._started,
            begun.execution.key,
            self._executions_key(begun.job_id),
        ]

    def _executions_key(self, job_id: str) -> str:
        return str(ExecutionRegistry.key_template.format(job_id))

    def _worked(self, begun: BegunJob) -> float:
        return (now() - begun.execution.created_at).total_seconds()


def decode_request(data: bytes) -> RelayRequest | None:
    """The relay request out of RQ's job data (function, instance, arguments, keywords); None when it is another job."""
    try:
        arguments = JSONSerializer.loads(zlib.decompress(data))[2]
        return RelayRequest.decode(arguments[0])
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError, TypeError, IndexError, KeyError):
        return None
