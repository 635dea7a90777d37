"""A queue with one or two jobs, a stock RQ worker with a lease, and our bookkeeping."""

from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.protocol.relay_queue import RelayQueue, open_rq_queue
from tests.builders import build_request
from tests.doubles import HEARTBEAT_TTL_SECONDS, StockWorker
from workers.credentials.leases import Lease
from workers.jobs.job_records import StartedJob
from workers.jobs.rq_bookkeeping import Bookkeeping, FailedAttempt

#: Built once: what stock RQ leaves is compared with what we leave of the same requests.
FIRST_REQUEST, SECOND_REQUEST = build_request(), build_request("req_2")

#: A failed attempt of the harness's worker.
FAILED = FailedAttempt(" c1:signature:1:0")

#: Fields of hashes that differ from one run to the next.
VARYING_FIELDS = {
    "id",
    "last_heartbeat",
    "started_at",
    "ended_at",
    "created_at",
    "enqueued_at",
    "birth",
    "total_working_time",
}


class BookkeepingHarness:
    """One job, popped by a registered worker and not started yet. Flushes Redis first."""

    def __init__(self, redis: Redis) -> None:
        redis.flushall()
        self.redis = redis
        self.queue: Queue = open_rq_queue(redis, "chat:default")
        RelayQueue(redis, 10).enqueue(FIRST_REQUEST, b"the body")
        self.worker = StockWorker(
            [self.queue], name="default.c1", connection=redis, serializer=JSONSerializer, worker_ttl=60
        )
        self.worker.register_birth()
        self.worker.set_state("idle")
        self.lease = Lease("default", "c1", "a:1", 1e12)
        redis.set(self.lease.key, self.lease.value)
        self.bookkeeping = Bookkeeping(redis, "default")
        self.pop()

    def pop(self) -> None:
        """Moves the first waiting job to the worker, as BLMOVE does."""
        self.redis.lmove(self.queue.key, self.queue.intermediate_queue_key)

    def start(self) -> StartedJob:
        started = self.try_to_start("req_1")
        assert started is not None
        return started

    def try_to_start(self, job_id: str) -> StartedJob | None:
        execution = self.bookkeeping.create_execution(self.worker, job_id)
        return self.bookkeeping.begin(self.worker, execution, HEARTBEAT_TTL_SECONDS, self.lease)

    def waiting_jobs(self) -> list[bytes]:
        """The waiting interactive jobs, those that wait for another attempt first; all are in one of RQ's queues."""
        retries = self.redis.zrange(keys.waiting_retries("default"), 0, -1)
        assert self.redis.lrange("rq:queue:batch:default", 0, -1) == retries
        return [*retries, *self.redis.lrange(self.queue.key, 0, -1)]

    def job(self) -> Job:
        return Job.fetch("req_1", connection=self.redis, serializer=JSONSerializer)


class TwoJobHarness(BookkeepingHarness):
    """One job that a worker has popped, and one that waits."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        RelayQueue(redis, 10).enqueue(SECOND_REQUEST, b"the second body")

    def finish_and_start(self, ended: StartedJob, *, ok: bool = True) -> StartedJob | None:
        execution = self.bookkeeping.create_execution(self.worker)
        return self.bookkeeping.finish_and_begin(
            self.worker, ended, execution, HEARTBEAT_TTL_SECONDS, self.lease, ok=ok
        )


def snapshot(redis: Redis) -> dict[str, Any]:
    """All of RQ's keys in Redis, without times and execution ids."""
    state: dict[str, Any] = {}
    for key in sorted(redis.keys("rq:*")):
        name = key.decode()
        kind = redis.type(key).decode()
        if name.startswith("rq:execution:"):
            name = "rq:execution:<job>:<execution>"
        if kind == "hash":
            fields = {k.decode(): v.decode(errors="replace") for k, v in redis.hgetall(key).items()}
            state[name] = {k: v for k, v in fields.items() if k not in VARYING_FIELDS and not k.startswith("farm_")}
        elif kind == "zset":
            members = redis.zrange(key, 0, -1)
            composite = not name.startswith("rq:executions:")
            state[name] = sorted(m.decode().split(":")[0] for m in members) if composite else len(members)
        elif kind == "set":
            state[name] = sorted(member.decode().split(":")[0] for member in redis.smembers(key))
        elif kind == "list":
            state[name] = redis.lrange(key, 0, -1)
        else:
            state[name] = kind
    return state


def start_with_stock_rq(harness: BookkeepingHarness) -> Any:
    job = harness.job()
    execution = harness.worker.prepare_execution(job)
    harness.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    return job, execution
