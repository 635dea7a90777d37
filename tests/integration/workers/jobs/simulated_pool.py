"""A pool's queue and workers whose jobs take as long as the test says, without waiting for it."""

from dataclasses import dataclass, field
from datetime import timedelta

from redis import Redis
from rq.serializers import JSONSerializer

from shared.errors import NoAllowedJob
from shared.protocol.relay_queue import Admission, RelayQueue
from tests.builders import build_request
from tests.doubles import StockWorker
from workers.credentials.leases import Lease
from workers.jobs.job_records import StartedJob
from workers.jobs.rq_bookkeeping import BatchPolicy, Bookkeeping, FailedAttempt, Requeued


@dataclass
class SimulatedPool:
    """The queue of a pool, and as many workers as a test wants."""

    redis: Redis
    batch_policy: BatchPolicy = field(default_factory=BatchPolicy)
    max_queue: int = 100_000
    name: str = "default"

    def __post_init__(self) -> None:
        self.queue = RelayQueue(self.redis, self.max_queue)
        self.bookkeeping = Bookkeeping(self.redis, self.name, batch_policy=self.batch_policy)
        self.count = 0

    def enqueue(self, key: str, times: int = 1, weight: float = 1.0, **changes) -> list[str]:
        """Enqueues requests of a key; returns their ids, `req_<key>_<number>`."""
        for _ in range(times):
            self.admit(key, weight, **changes)
        return [f"req_{key}_{number}" for number in range(self.count - times + 1, self.count + 1)]

    def admit(self, key: str, weight: float = 1.0, **changes) -> Admission:
        """Enqueues one request."""
        self.count += 1
        request = build_request(f"req_{key}_{self.count}", key=key, **changes)
        return self.queue.enqueue(request, b"x", weight=weight)

    def worker(self, number: int = 1) -> "SimulatedWorker":
        return SimulatedWorker(self, number)


class SimulatedWorker:
    """An RQ worker that starts and ends jobs when it is told to."""

    def __init__(self, pool: SimulatedPool, number: int) -> None:
        self.pool = pool
        self.lease = Lease(pool.name, f"c{number}", f"p:{number}", 1e12)
        pool.redis.set(self.lease.key, self.lease.value)
        queues = list(pool.bookkeeping.queues.values())
        name = f"{pool.name}.c{number}"
        self.rq = StockWorker(queues, name=name, connection=pool.redis, serializer=JSONSerializer)
        self.started: StartedJob | None = None

    def start(self, job_id: str = "") -> str:
        """Starts that job, or the next; returns the id of the one it has started, '' for none."""
        try:
            self.start_or_raise(job_id)
        except NoAllowedJob:
            self.started = None
        return self.started.job_id if self.started else ""

    def start_or_raise(self, job_id: str = "") -> None:
        """Raises NoAllowedJob."""
        bookkeeping = self.pool.bookkeeping
        self.started = bookkeeping.begin(self.rq, bookkeeping.create_execution(self.rq, job_id), 60, self.lease)

    def requeue(
        self,
        *,
        only_others: bool = False,
        retry_delay: float = 0.0,
        entry_if_cancelled: str = "",
        is_model_limited: bool = False,
    ) -> Requeued:
        """Fails its job's attempt."""
        assert self.started is not None
        entry = f" {self.lease.credential_id}:signature:1:0"
        attempt = FailedAttempt(entry, retry_delay, only_others, is_model_limited)
        return self.pool.bookkeeping.requeue(self.rq, self.started, attempt, entry_if_cancelled)

    def finish_and_start(self, seconds: float = 1.0) -> str:
        """Ends its job, which has taken so many seconds, and starts the next; returns its id, '' for none."""
        assert self.started is not None
        bookkeeping = self.pool.bookkeeping
        execution = bookkeeping.create_execution(self.rq)
        self.started.execution.created_at = execution.created_at - timedelta(seconds=seconds)
        try:
            self.started = bookkeeping.finish_and_begin(self.rq, self.started, execution, 60, self.lease, ok=True)
        except NoAllowedJob:
            self.started = None
        return self.started.job_id if self.started else ""


def key_of(job_id: str) -> str:
    return job_id.split("_")[1]


def serve(worker: SimulatedWorker, jobs: int) -> list[str]:
    """The keys whose jobs are started, one after the other, each taking a second."""
    job_ids = [worker.start()]
    while len(job_ids) < jobs and worker.started:
        job_ids.append(worker.finish_and_start())
    return [key_of(job_id) for job_id in job_ids if job_id]
