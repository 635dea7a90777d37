"""The way in: relay requests as RQ jobs in a bounded queue; it knows nothing of HTTP or upstreams.

RQ stays RQ: the jobs, queues and workers it leaves in Redis are those that `rq info` and the dashboard read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from redis import Redis
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.messages import RelayRequest
from shared.redis_client import script

LUA = Path(__file__).parent / "lua"
#: What a worker runs; a name, because the front must not import the workers.
RELAY_FUNCTION = "workers.worker.relay"
#: Seconds that a failed job stays in RQ's failed registry, without its body.
FAILURE_TTL = 600
#: Seconds that RQ waits beyond a job's own deadline before it calls the job abandoned.
GRACE = 60
#: Field of a job's hash, beside RQ's own: the key that is there when the web process that waited for it has died.
FRONT_FIELD = "farm_front"


class QueueFull(Exception):
    """Raised when as many requests wait as may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests wait")
        self.waiting = waiting


class RelayQueue:
    """Admits, withdraws and counts the requests of all pools."""

    def __init__(self, redis: Redis, max_queue: int) -> None:
        self._redis = redis
        self._max_queue = max_queue
        self._queues: dict[str, Queue] = {}
        self._enqueue = script(redis, LUA / "enqueue.lua")
        self._cancel = script(redis, LUA / "cancel.lua")

    def enqueue(self, request: RelayRequest, body: bytes) -> int:
        """Admits a request in one round trip; returns its place in the queue. Raises QueueFull."""
        queue = self._queue(request.pool)
        job = self._job(queue, request)
        keep_ms = int((request.deadline - request.enqueued_at + GRACE) * 1000)
        fields = [part for pair in job.to_dict().items() for part in pair]
        fields += [FRONT_FIELD, keys.gone(request.front)]
        admitted, waiting = self._enqueue(
            keys=[queue.key, Queue.redis_queues_keys, job.key, keys.body(request.id)],
            args=[self._max_queue, job.id, keep_ms, body, *fields],
        )
        if not admitted:
            raise QueueFull(int(waiting))
        return int(waiting)

    def _queue(self, pool: str) -> Queue:
        """The pool's RQ queue, made once, because RQ's constructor is not free."""
        if pool not in self._queues:
            self._queues[pool] = rq_queue(self._redis, keys.chat_queue(pool))
        return self._queues[pool]

    def _job(self, queue: Queue, request: RelayRequest) -> Job:
        """The job as RQ's own enqueue would make it: JSON data, a description without arguments."""
        job = queue.create_job(
            RELAY_FUNCTION,
            args=(request.encode(),),
            timeout=int(request.deadline - request.enqueued_at) + GRACE,
            result_ttl=0,
            failure_ttl=FAILURE_TTL,
            description=f"{request.method} {request.path.partition('?')[0]}",
            job_id=request.id,
        )
        job.redis_server_version = (6, 2, 0)
        queue._prepare_for_queue(job)
        return job

    def withdraw(self, pool: str, request_id: str) -> bool:
        """Takes out a request that still waits; False when a worker has it already, or it is gone."""
        return self._end(pool, request_id, only_waiting=True) == "withdrawn"

    def cancel(self, pool: str, request_id: str) -> str:
        """Takes out a request that waits, stops one that runs. `withdrawn`, `stopping` or `gone`."""
        return self._end(pool, request_id, only_waiting=False)

    def _end(self, pool: str, request_id: str, *, only_waiting: bool) -> str:
        queue = self._queue(pool)
        outcome = self._cancel(
            keys=[queue.key, Job.key_for(request_id), keys.body(request_id)],
            args=[request_id, PUBSUB_CHANNEL_TEMPLATE % "", int(only_waiting)],
        )
        return cast("bytes", outcome).decode()

    def waiting(self, pool: str) -> int:
        """Requests that wait in the pool's queue."""
        return int(self._queue(pool).count)

    def vanished(self, request_ids: Iterable[str]) -> set[str]:
        """Those of the requests whose job is in Redis no more (ended, emptied or deleted by a person)."""
        asked = list(request_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for request_id in asked:
                pipe.exists(Job.key_for(request_id))
            found = pipe.execute()
        return {request_id for request_id, there in zip(asked, found, strict=True) if not there}


def rq_queue(redis: Redis, name: str) -> Queue:
    """RQ's queue of that name, with JSON and never pickle."""
    return Queue(name, connection=redis, serializer=JSONSerializer)
