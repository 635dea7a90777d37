"""RQ's bookkeeping of a job in one round trip before and one after the upstream call; it decides nothing.

RQ's own methods take about 70 commands a job. Each script here names the methods of RQ 3.0 that it stands for, and
tests/integration/test_bookkeeping.py compares what Redis holds afterwards with what stock RQ leaves.
"""

import json
import uuid
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from shared import keys
from shared.errors import LeaseLost, UpstreamDown
from shared.messages import RelayRequest
from shared.pipeline import Pipeline
from workers.leases import Lease

LUA = Path(__file__).parent / "lua"
#: Failed jobs kept per queue; older ones go first.
MOST_FAILED = 1000
#: Answers of turn.lua, and what it may be asked for in place of a job's id, of an end and of a beginning.
GONE, NOT_YOURS, NOT_NOW = b"gone", b"not yours", b"not now"
FIRST_IN_QUEUE = "*"
Args = tuple[Any, ...]
NOTHING_ENDS: Args = ("", "", "", "")
NOTHING_BEGINS: Args = ("", "", "", "", "", "", "")


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

    def __init__(self, redis: Redis, queue: Queue, pool: str, pipeline: Pipeline | None = None) -> None:
        self._redis = redis
        self._queue = queue
        self._pool = pool
        self._started = StartedJobRegistry(queue=queue).key
        pipeline = pipeline or Pipeline(redis)
        self._turn = pipeline.script(LUA / "turn.lua")
        self._requeue = pipeline.script(LUA / "requeue.lua")

    def new_execution(self, worker: BaseWorker, job_id: str = "") -> Execution:
        """An execution that `begin` or `turn` can be asked for, again if need be."""
        return Execution(uuid.uuid4().hex, job_id, self._redis, worker.name)

    def begin(
        self, worker: BaseWorker, execution: Execution, ttl: int, lease: Lease, *, probe: bool = False
    ) -> BegunJob | None:
        """Marks the job as begun by the worker; None when it was withdrawn or put back meanwhile.

        Raises LeaseLost when the worker's lease is another's by now, UpstreamDown when the pool's breaker is open and
        this is no probe; the job is in the queue again.
        """
        begin = self._begin_args(worker, execution, execution.job_id, ttl, lease, probe=probe)
        _, found = self._ask(worker, lease.key, execution.created_at, NOTHING_ENDS, begin)
        if found == NOT_NOW:
            raise UpstreamDown("the upstream is down")
        if found == NOT_YOURS:
            raise LeaseLost("the lease went to another before the job was begun")
        return None if found == GONE else self._begun(worker, execution, found)

    def turn(
        self, worker: BaseWorker, ended: BegunJob, execution: Execution, ttl: int, lease: Lease, *, ok: bool
    ) -> BegunJob | None:
        """Ends a job and begins the first that waits in the queue; None when there is none, or it may not."""
        end = self._end_args(ended, execution.created_at, ok=ok)
        begin = self._begin_args(worker, execution, FIRST_IN_QUEUE, ttl, lease)
        _, found = self._ask(worker, lease.key, execution.created_at, end, begin)
        worker.executions.pop(ended.execution.id, None)
        if found is None:
            return None
        execution.job_id = found[0].decode()
        return self._begun(worker, execution, found)

    def finish(self, worker: BaseWorker, begun: BegunJob, *, ok: bool) -> bool:
        """Ends the job and forgets it; False when this execution had been ended before."""
        worker.executions.pop(begun.execution.id, None)
        at = now()
        end = self._end_args(begun, at, ok=ok)
        ended, _ = self._ask(worker, "", at, end, NOTHING_BEGINS)
        return bool(ended)

    def _ask(self, worker: BaseWorker, lease_key: str, at: datetime, end: Args, begin: Args) -> Any:
        queue = self._queue
        return self._turn(
            keys=[
                queue.key,
                queue.intermediate_queue_key,
                self._started,
                worker.key,
                worker.executions_key,
                lease_key,
                keys.breaker(self._pool),
                keys.served(self._pool),
            ],
            args=[utcformat(at), at.timestamp(), *end, *begin, RQ_KEY_PREFIX, keys.body("")],
        )

    def _begin_args(
        self, worker: BaseWorker, execution: Execution, job_id: str, ttl: int, lease: Lease, *, probe: bool = False
    ) -> Args:
        return (job_id, execution.id, worker.name, ttl, worker.worker_ttl + 60, lease.value, int(probe))

    def _end_args(self, begun: BegunJob, at: datetime, *, ok: bool) -> Args:
        counter = "successful_job_count" if ok else "failed_job_count"
        worked = (at - begun.execution.created_at).total_seconds()
        return (begun.job_id, begun.execution.id, counter, worked)

    def _begun(self, worker: BaseWorker, execution: Execution, found: list[Any]) -> BegunJob:
        _, data, retries, running, body = found
        worker.executions[execution.id] = execution
        return BegunJob(execution.job_id, execution, int(retries), int(running), decode_request(data), body)

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
        self._redis.incr(keys.served(self._pool))
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
        return float((now() - begun.execution.created_at).total_seconds())


def decode_request(data: bytes) -> RelayRequest | None:
    """The relay request out of RQ's job data (function, instance, arguments, keywords); None when it is another job."""
    try:
        arguments = json.loads(zlib.decompress(data))[2]
        return RelayRequest.decode(arguments[0])
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError, TypeError, IndexError, KeyError):
        return None
