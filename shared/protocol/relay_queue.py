"""The way in: relay requests as RQ jobs in a bounded queue; it knows nothing of HTTP or upstreams.

RQ stays RQ: the jobs, queues and workers it leaves in Redis are those that `rq info` and the dashboard read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, cast

from redis import Redis
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys, names
from shared.api_keys.limits import LimitReached, LimitUsage
from shared.errors import FarmError
from shared.protocol.job_template import GRACE_SECONDS, JobTemplate
from shared.protocol.messages import RelayRequest
from shared.redis_connection.auto_pipeline import AutoPipeline

#: Lua functions for the scripts that admit, begin and end jobs, in the order in which they build on each other.
SCHEDULING_LUA = tuple(Path(__file__).with_name(name) for name in ("limits.lua", "fair.lua", "ending.lua"))
#: Bands and RQ's queue of each.
BANDS = {"interactive": names.chat_queue, "batch": names.batch_queue}
#: Fields of a job's hash, beside RQ's own: the key that is there when the web process that waited for it has died,
FRONT_FIELD = "farm_front"
#: the API key it counts for, whether that has limits, the job's band, when it was admitted,
KEY_FIELD, LIMITED_FIELD, BAND_FIELD, ADMITTED_FIELD = "farm_key", "farm_limited", "farm_band", "farm_at"
#: and whether it stands in its key's line.
QUEUED_FIELD = "farm_lined"


class QueueFull(FarmError):
    """Raised when as many requests wait as may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests wait")
        self.waiting = waiting


@dataclass(frozen=True)
class Admission:
    """A request that waits for a worker."""

    #: Requests that wait in the pool, this one included.
    queue_length: int
    #: How many of them go before it, as far as can be told now.
    ahead: int
    limit_usage: LimitUsage


class RelayQueue:
    """Admits, withdraws and counts the requests of all pools."""

    def __init__(self, redis: Redis, max_queue: int) -> None:
        self._redis = redis
        self._max_queue = max_queue
        self._templates: dict[str, JobTemplate] = {}
        self._pipeline = AutoPipeline(redis)
        self._enqueue = self._pipeline.register_script(*SCHEDULING_LUA, Path(__file__).with_name("enqueue.lua"))
        self._cancel = self._pipeline.register_script(*SCHEDULING_LUA, Path(__file__).with_name("cancel.lua"))

    def enqueue(self, request: RelayRequest, body: bytes, want: bytes = b"", weight: float = 1.0) -> Admission:
        """Admits a request in one round trip. `want` is what limits.demand made of its key, b'' for no limits.

        Raises QueueFull, LimitReached.
        """
        keep = request.deadline - request.enqueued_at + GRACE_SECONDS
        over_at = request.deadline + GRACE_SECONDS
        chat, batch = queue_keys(request.pool)
        reason, waiting, before, wait, *standing = self._enqueue(
            keys=[
                chat,
                batch,
                Queue.redis_queues_keys,
                Job.key_for(request.id),
                keys.body(request.id),
                keys.fair_queue(request.pool),
                keys.idle_workers(request.pool),
            ],
            args=[
                self._max_queue,
                request.id,
                int(keep * 1000),
                body,
                request.enqueued_at,
                over_at,
                want,
                Job.key_for(""),
                request.band,
                request.key,
                weight,
                *chain.from_iterable(self._build_fields(request, limited=bool(want)).items()),
            ],
        )
        if reason == b"queue":
            raise QueueFull(int(waiting))
        found = LimitUsage.decode(standing)
        if reason:
            raise LimitReached(reason.decode(), float(wait), found)
        return Admission(int(waiting), int(before), found)

    def _build_fields(self, request: RelayRequest, *, limited: bool) -> dict[str, Any]:
        """The job's hash."""
        return {
            **self._template(BANDS[request.band](request.pool)).render(request),
            FRONT_FIELD: keys.front_gone(request.front),
            KEY_FIELD: request.key,
            BAND_FIELD: request.band,
            ADMITTED_FIELD: request.enqueued_at,
            QUEUED_FIELD: 1,
            **({LIMITED_FIELD: 1} if limited else {}),
        }

    def _template(self, name: str) -> JobTemplate:
        """The form of an RQ queue's jobs, made once, because RQ asks Redis for its version then."""
        if name not in self._templates:
            self._templates[name] = JobTemplate(open_rq_queue(self._redis, name))
        return self._templates[name]

    def withdraw(self, pool: str, request_id: str) -> bool:
        """Takes out a request that still waits; False when a worker has it already, or it is gone."""
        return self.cancel(pool, request_id, only_waiting=True) == "withdrawn"

    def cancel(self, pool: str, request_id: str, *, only_waiting: bool = False) -> str:
        """Removes a request that waits, stops one that runs; returns `withdrawn`, `stopping` or `gone`.

        With `only_waiting` a request that runs goes on: `running`.
        """
        outcome = self._cancel(
            keys=[
                *queue_keys(pool),
                Job.key_for(request_id),
                keys.body(request_id),
                keys.fair_queue(pool),
                keys.idle_workers(pool),
            ],
            args=[request_id, PUBSUB_CHANNEL_TEMPLATE % "", int(only_waiting), Job.key_for("")],
        )
        return cast("bytes", outcome).decode()

    def count_waiting(self, pool: str) -> int:
        """Requests that wait in the pool's queues."""
        return sum(int(self._pipeline.execute("LLEN", key)) for key in queue_keys(pool))

    def find_vanished(self, request_ids: Iterable[str]) -> set[str]:
        """Those of the requests whose job is in Redis no more (ended, emptied or deleted by a person)."""
        asked = list(request_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for request_id in asked:
                pipe.exists(Job.key_for(request_id))
            found = pipe.execute()
        return {request_id for request_id, there in zip(asked, found, strict=True) if not there}


@cache
def queue_keys(pool: str) -> tuple[str, str]:
    """The Redis lists of a pool's two RQ queues, interactive first."""
    interactive, batch = (f"{Queue.redis_queue_namespace_prefix}{name(pool)}" for name in BANDS.values())
    return interactive, batch


def open_rq_queue(redis: Redis, name: str) -> Queue:
    """RQ's queue of that name, with JSON and never pickle."""
    return Queue(name, connection=redis, serializer=JSONSerializer)
