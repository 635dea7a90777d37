"""The way in: relay requests as RQ jobs in a bounded queue; it knows nothing of HTTP or upstreams.

RQ stays RQ: the jobs, queues and workers it leaves in Redis are those that `rq info` and the dashboard read.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import cast

from redis import Redis
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.job_form import GRACE, JobForm
from shared.messages import RelayRequest
from shared.pipeline import Pipeline

LUA = Path(__file__).parent / "lua"
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
        self._forms: dict[str, JobForm] = {}
        self._pipeline = Pipeline(redis)
        self._enqueue = self._pipeline.script(LUA / "enqueue.lua")
        self._cancel = self._pipeline.script(LUA / "cancel.lua")

    def enqueue(self, request: RelayRequest, body: bytes) -> int:
        """Admits a request in one round trip; returns its place in the queue. Raises QueueFull."""
        queue = self._queue(request.pool)
        fields = {**self._forms[request.pool].fill(request), FRONT_FIELD: keys.gone(request.front)}
        keep_ms = int((request.deadline - request.enqueued_at + GRACE) * 1000)
        admitted, waiting = self._enqueue(
            keys=[queue.key, Queue.redis_queues_keys, Job.key_for(request.id), keys.body(request.id)],
            args=[self._max_queue, request.id, keep_ms, body, *chain.from_iterable(fields.items())],
        )
        if not admitted:
            raise QueueFull(int(waiting))
        return int(waiting)

    def _queue(self, pool: str) -> Queue:
        """The pool's RQ queue, made once, because RQ's constructor is not free."""
        if pool not in self._queues:
            queue = rq_queue(self._redis, keys.chat_queue(pool))
            # RQ asks Redis for its version here, so others may come in between: the form first.
            self._forms[pool] = JobForm(queue)
            self._queues[pool] = queue
        return self._queues[pool]

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
        return int(self._pipeline.ask("LLEN", self._queue(pool).key))

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
