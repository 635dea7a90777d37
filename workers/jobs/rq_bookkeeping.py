"""RQ's bookkeeping for a job, in one round trip before and one after the upstream call.

RQ's own methods need about 70 commands per job. Each script names the methods of RQ 3.0 that it stands for, and
tests/integration/workers/jobs/test_rq_bookkeeping.py compares what Redis holds afterwards with what stock RQ leaves.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
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
from rq.utils import utcformat
from rq.worker import BaseWorker

from shared import clock, keys
from shared.errors import AccountResting, BreakerOpen, LeaseLost, NoAllowedJob, PoolPaused
from shared.pacing.scripts import PACE_LUA
from shared.protocol.job_data import decode_request
from shared.protocol.relay_queue import (
    BAND_FIELD,
    BANDS,
    FRONT_FIELD,
    KEY_FIELD,
    SCHEDULING_LUA,
    open_rq_queue,
    queue_keys,
)
from shared.redis_connection.auto_pipeline import AutoPipeline
from workers.credentials.leases import Lease
from workers.jobs.job_records import (
    JobCost,
    ScriptArgs,
    StartedJob,
    UnreadableJob,
    describe_unreadable,
    seconds_worked,
)
from workers.jobs.large_body_reader import read_large_body
from workers.jobs.pace import NO_PACE, AccountPace, JobPace, find_pace_args

#: Failed jobs kept per queue; the oldest are deleted.
MAX_FAILED_JOBS = 1000
#: Replies of turn.lua in place of a job, and arguments for the next job, for nothing to finish and nothing to begin.
LEASE_LOST, BREAKER_OPEN, PAUSED = b"not yours", b"not now", b"paused"
#: What it replies, with seconds, when the credential rests for some models, and nothing else is queued.
IDLE_FOR = b"idle "
#: Number of parts of its reply in place of a job when the account has to rest.
REST_LENGTH = 3
NEXT_JOB = "*"
#: What a job is begun as, to turn.lua.
PROBE_ROLE, TRIAL = "1", "trial"
NO_END: ScriptArgs = ("", "", "", "", 0, "")
NO_START: ScriptArgs = ("", "", "", "", "", "", "")
NO_COST = JobCost()
#: Lua functions for jobs that begin and end: waiting retries, jobs set aside, rests; they build on SCHEDULING_LUA.
JOBS_LUA = (
    *SCHEDULING_LUA,
    *(Path(__file__).with_name(name) for name in ("retries.lua", "model_rests.lua")),
    PACE_LUA,
    Path(__file__).with_name("rests.lua"),
)


class Requeued(IntEnum):
    """What `Bookkeeping.requeue` has done, as requeue.lua says it."""

    #: The job is gone, has been cancelled, or was requeued before.
    NO = 0
    #: It waits for a credential that has not tried it.
    FOR_OTHERS = 1
    #: It waits, and only credentials that have tried it can take it.
    FOR_TRIED = 2
    #: It was left alone, because only such credentials are left.
    NOBODY_LEFT = 3


@dataclass(frozen=True)
class FailedAttempt:
    """What a requeued job keeps of an attempt that has failed."""

    #: Its entry in the job's list of tried credentials (workers/attempt/blame.py); '' if it was a probe.
    entry: str = ""
    #: Seconds until a credential that has tried the job may do so once more, if no other can.
    retry_delay: float = 0.0
    #: Whether to try only credentials that have not.
    only_others: bool = False
    #: Whether its credential rests for the job's model now, so that the job waits for one that doesn't.
    is_model_limited: bool = False

    @classmethod
    def of_orphan(cls, credential_id: str) -> "FailedAttempt":
        """The attempt of a worker that has died, which says nothing about its request or credential."""
        return cls(f" {credential_id}::0:0")


PROBE = FailedAttempt()


@dataclass(frozen=True)
class BatchPolicy:
    """When a batch request overtakes waiting interactive ones."""

    #: Seconds after which a waiting batch request is due.
    wait_seconds: float = 30.0
    #: While one is due, one in this many started jobs is a batch request.
    interval: int = 10


class Bookkeeping:
    """Begins, finishes and requeues the jobs of one pool, in the order of its fair queue (fair.lua)."""

    def __init__(
        self,
        redis: Redis,
        pool: str,
        pipeline: AutoPipeline | None = None,
        batch_policy: BatchPolicy = BatchPolicy(),
        queue_timeout: float = 300.0,
    ) -> None:
        """`queue_timeout`: seconds for which a request may wait, FARM_QUEUE_TIMEOUT."""
        self._redis = redis
        self._pool = pool
        self._batch_policy = batch_policy
        #: Band -> RQ queue.
        self.queues = {band: open_rq_queue(redis, name(pool)) for band, name in BANDS.items()}
        self._registry_keys = {band: StartedJobRegistry(queue=queue).key for band, queue in self.queues.items()}
        #: The pool's keys for turn.lua, before and after the worker's.
        self._leading_keys = (
            *queue_keys(pool),
            self.queues["interactive"].intermediate_queue_key,
            *self._registry_keys.values(),
        )
        self._trailing_keys = (
            keys.breaker(pool),
            keys.served_jobs(pool),
            keys.fair_queue(pool),
            keys.idle_workers(pool),
            keys.REQUEST_LOG,
            keys.credentials(pool),
            keys.paused(pool),
        )
        #: What the scripts need to tell whether a credential can take a job.
        self._history_prefix = keys.history("")
        self._retry_args = (keys.lease(""), keys.credential(""), queue_timeout)
        pipeline = pipeline or AutoPipeline(redis)
        self._turn_script = pipeline.register_script(*JOBS_LUA, Path(__file__).with_name("turn.lua"))
        self._requeue_script = pipeline.register_script(*JOBS_LUA, Path(__file__).with_name("requeue.lua"))
        self._settle_script = pipeline.register_script(*JOBS_LUA, Path(__file__).with_name("settle.lua"))

    def create_execution(self, worker: BaseWorker, job_id: str = "") -> Execution:
        """Creates an execution for `begin` or `finish_and_begin`; to retry them with it is idempotent."""
        execution = Execution(uuid.uuid4().hex, job_id, self._redis, worker.name)
        execution.created_at = clock.utc_now()
        return execution

    def begin(
        self,
        worker: BaseWorker,
        execution: Execution,
        ttl: int,
        lease: Lease,
        *,
        probe: bool = False,
        trial: bool = False,
        pace: AccountPace | None = None,
    ) -> StartedJob | None:
        """Begins the next job in fair order, not necessarily the one that the execution names.

        None when no job is queued; the worker is then marked as idle. Raises LeaseLost when another process holds the
        lease by now, PoolPaused when an operator has paused the pool, BreakerOpen when its breaker is open and this is
        no probe, AccountResting when the account has to rest, by its `pace`; a job that the execution names is then put
        back into its queue. Raises NoAllowedJob when its credential rests for a model and nothing else is queued; the
        worker is then idle, too, unless this is a `trial` of another model.
        """
        role = TRIAL if trial else PROBE_ROLE if probe else ""
        begin = self._build_begin_args(worker, execution, execution.job_id or NEXT_JOB, ttl, lease, role)
        paced = pace.build_args() if pace else NO_PACE
        _, reply = self._run_turn_script(worker, lease.key, execution.created_at, NO_END, begin, pace=paced)
        return self._parse_started_job(worker, execution, reply, pace)

    def finish_and_begin(
        self,
        worker: BaseWorker,
        job: StartedJob,
        execution: Execution,
        ttl: int,
        lease: Lease,
        *,
        ok: bool,
        cost: JobCost = NO_COST,
        pace: AccountPace | None = None,
    ) -> StartedJob | None:
        """Finishes a job and begins the next one, as `begin` does.

        `pace`: of the account, None for one without limits; the finished job may have begun without any, or with some.
        Raises LeaseLost, PoolPaused, BreakerOpen, AccountResting, NoAllowedJob.
        """
        end = self._build_end_args(job, execution.created_at, cost, ok=ok)
        begin = self._build_begin_args(worker, execution, NEXT_JOB, ttl, lease)
        paced = pace.build_args(job.pace.sent_ago if job.pace else -1.0) if pace else NO_PACE
        log_args = (cost.entry, job.band)
        _, reply = self._run_turn_script(worker, lease.key, execution.created_at, end, begin, log_args, paced)
        worker.executions.pop(job.execution.id, None)
        return self._parse_started_job(worker, execution, reply, pace)

    def finish(self, worker: BaseWorker, job: StartedJob, *, ok: bool, cost: JobCost = NO_COST) -> bool:
        """Finishes the job and deletes it; False when this execution has been finished before."""
        worker.executions.pop(job.execution.id, None)
        at = clock.utc_now()
        end = self._build_end_args(job, at, cost, ok=ok)
        # No lease is read, but an ACL checks every key, and an empty one matches no pattern of the farm's.
        log_args = (cost.entry, job.band)
        paced = find_pace_args(job.pace)
        has_ended, _ = self._run_turn_script(worker, keys.lease(""), at, end, NO_START, log_args, paced)
        return bool(has_ended)

    def _run_turn_script(
        self,
        worker: BaseWorker,
        lease_key: str,
        at: datetime,
        end: ScriptArgs,
        begin: ScriptArgs,
        log_args: ScriptArgs = ("", ""),
        pace: ScriptArgs = NO_PACE,
    ) -> Any:
        return self._turn_script(
            keys=[*self._leading_keys, worker.key, worker.executions_key, lease_key, *self._trailing_keys],
            args=[
                utcformat(at),
                at.timestamp(),
                *end,
                *begin,
                RQ_KEY_PREFIX,
                keys.body(""),
                self._batch_policy.wait_seconds,
                self._batch_policy.interval,
                *log_args,
                *self._retry_args,
                *pace,
                self._history_prefix,
            ],
        )

    def _build_begin_args(
        self, worker: BaseWorker, execution: Execution, job_id: str, ttl: int, lease: Lease, role: str = ""
    ) -> ScriptArgs:
        return (job_id, execution.id, worker.name, ttl, worker.worker_ttl + 60, lease.value, role)

    def _build_end_args(self, job: StartedJob, at: datetime, cost: JobCost, *, ok: bool) -> ScriptArgs:
        counter = "successful_job_count" if ok else "failed_job_count"
        return (job.job_id, job.execution.id, counter, seconds_worked(job, at), *cost.args)

    def _parse_started_job(
        self, worker: BaseWorker, execution: Execution, reply: Any, pace: AccountPace | None
    ) -> StartedJob | None:
        if reply == BREAKER_OPEN:
            raise BreakerOpen("the upstream is down")
        if reply == PAUSED:
            raise PoolPaused("an operator has paused the pool")
        if reply == LEASE_LOST:
            raise LeaseLost("the lease was lost before the job was begun")
        if reply is None:
            return None
        if isinstance(reply, bytes) and reply.startswith(IDLE_FOR):
            raise NoAllowedJob(float(reply.removeprefix(IDLE_FOR)))
        if len(reply) == REST_LENGTH:
            raise AccountResting(float(reply[1]), reply[2].decode())
        job_id, data, retries, other_executions, body, band, tried, ahead = reply
        if isinstance(body, int):
            body = read_large_body(self._redis, keys.body(job_id.decode()), body)
        execution.job_id = job_id.decode()
        worker.executions[execution.id] = execution
        request = decode_request(data)
        return StartedJob(
            execution.job_id,
            execution,
            int(retries),
            int(other_executions),
            request,
            body,
            band.decode(),
            tried.decode(),
            JobPace(pace) if pace else None,
            ahead.decode(),
        )

    def describe_unreadable(self, job_id: str) -> UnreadableJob:
        """Finds out who waits for a job whose request can't be read, as long as the job exists."""
        fields = self._redis.hmget(Job.key_for(job_id), ("data", FRONT_FIELD, KEY_FIELD, BAND_FIELD))
        return describe_unreadable(job_id, self._pool, fields)

    def requeue(
        self, worker: BaseWorker, job: StartedJob, attempt: FailedAttempt, entry_if_cancelled: str = ""
    ) -> Requeued:
        """Makes the job wait for another credential, or, after a failed probe, puts it at the end of its queue.

        `entry_if_cancelled` goes to the request log if the caller has gone.
        """
        worker.executions.pop(job.execution.id, None)
        at = clock.utc_now()
        result = self._requeue_script(
            keys=[
                Job.key_for(job.job_id),
                keys.body(job.job_id),
                worker.key,
                worker.executions_key,
                self._registry_keys[job.band],
                job.execution.key,
                str(ExecutionRegistry.key_template.format(job.job_id)),
                *queue_keys(self._pool),
                keys.fair_queue(self._pool),
                keys.idle_workers(self._pool),
                keys.REQUEST_LOG,
                keys.credentials(self._pool),
            ],
            args=[
                job.job_id,
                job.execution.id,
                seconds_worked(job, at),
                utcformat(at),
                at.timestamp(),
                int(bool(attempt.entry)),
                Job.key_for(""),
                entry_if_cancelled,
                attempt.entry,
                attempt.retry_delay,
                int(attempt.only_others),
                *self._retry_args,
                int(attempt.is_model_limited),
                *find_pace_args(job.pace),
            ],
        )
        return Requeued(result)

    def fail(self, worker: BaseWorker, job: StartedJob, reason: str, cost: JobCost = NO_COST) -> None:
        """Ends the job as failed, by RQ's own method, which keeps it for the dashboard; its body is deleted."""
        queue, registry_key = self.queues[job.band], self._registry_keys[job.band]
        composite_key = job.execution.composite_key
        self._settle_script(
            keys=[
                Job.key_for(job.job_id),
                keys.body(job.job_id),
                keys.fair_queue(self._pool),
                keys.REQUEST_LOG,
                registry_key,
            ],
            args=[
                job.job_id,
                *cost.args,
                seconds_worked(job, clock.utc_now()) + cost.penalty_seconds,
                cost.entry,
                composite_key,
                *find_pace_args(job.pace),
                job.execution.key,
            ],
        )
        rq_job = queue.fetch_job(job.job_id)
        if rq_job is None:
            self.finish(worker, job, ok=False)
            return
        if self._redis.zscore(registry_key, job.execution.composite_key) is None:
            return
        self._redis.incr(keys.served_jobs(self._pool))
        rq_job.ended_at = clock.utc_now()
        worker.handle_job_failure(rq_job, queue, exc_string=reason, execution=job.execution)
        if self._redis.zscore(registry_key, job.execution.composite_key) is not None:
            raise RedisError("RQ could not end the job")
        worker.set_state("idle")
        self._trim_failed(queue)

    def _trim_failed(self, queue: Queue) -> None:
        """Deletes the oldest failed jobs beyond MAX_FAILED_JOBS."""
        registry = queue.failed_job_registry
        surplus = registry.get_job_ids(0, -MAX_FAILED_JOBS - 1, cleanup=False)
        if surplus:
            record_keys = [name for job_id in surplus for name in (Job.key_for(job_id), Result.get_key(job_id))]
            self._redis.delete(*record_keys)
            self._redis.zrem(registry.key, *surplus)
