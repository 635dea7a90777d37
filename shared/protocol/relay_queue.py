"""Bounded queue of relay requests, stored as RQ jobs.

Jobs and queues in Redis have RQ's own format, so `rq info` and the dashboard can read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job
from rq.registry import DeferredJobRegistry
from rq.serializers import JSONSerializer

from shared import keys, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage, encode_demand
from shared.errors import FarmError
from shared.protocol.body_upload import BodyUpload
from shared.protocol.job_template import GRACE_SECONDS, JobTemplate
from shared.protocol.large_body import LargeBody
from shared.protocol.messages import RelayRequest
from shared.redis_connection.auto_pipeline import AutoPipeline

#: Files of Lua functions for the scripts that admit, start and end jobs, in order of dependence.
LIMITS_LUA, FAIR_LUA, MODEL_QUEUES_LUA, BODIES_LUA, HELD_REQUESTS_LUA, ENDING_LUA = (
    Path(__file__).with_name(name)
    for name in ("limits.lua", "fair.lua", "model_queues.lua", "bodies.lua", "held_requests.lua", "ending.lua")
)
SCHEDULING_LUA = (LIMITS_LUA, FAIR_LUA, MODEL_QUEUES_LUA, BODIES_LUA, HELD_REQUESTS_LUA, ENDING_LUA)
RELEASE_HELD_LUA = Path(__file__).with_name("release_held.lua")
#: What enqueue.lua says about a full queue -> what the caller is told.
QUEUE_FULL_MESSAGES = {
    "queue": "the farm's queue is full; try again later",
    "bytes": "the bodies of waiting requests take too much memory; try again later",
}
#: What it says about an upload that is not complete.
UPLOAD_LOST = b"upload"
#: A bound on bodies that is never reached.
UNLIMITED_BYTES = 2**52
#: Band -> function from a pool's name to the name of its RQ queue.
BANDS = {"interactive": names.chat_queue, "batch": names.batch_queue}
#: Fields of a job's hash beside RQ's own. The Redis key that exists once the front that waits for the job has died.
FRONT_FIELD = "farm_front"
#: API key id, whether the key has limits, the job's band, its admission time (seconds since the epoch).
KEY_FIELD, LIMITED_FIELD, BAND_FIELD, ADMITTED_FIELD = "farm_key", "farm_limited", "farm_band", "farm_at"
#: Why a request is cancelled: its caller has left, or an operator has cancelled it.
CLIENT_GONE, REQUEST_CANCELLED = "client_gone", "request_cancelled"
#: Where the job waits: 1 in its key's queue, `held`, `retry`, or `aside` (model_queues.lua).
QUEUED_FIELD = "farm_lined"
#: Whose requests were ahead at admission (enqueue.lua); absent for none.
AHEAD_FIELD = "farm_ahead"
#: The upstream's name of the model (names.limited_model).
MODEL_FIELD = "farm_model"


class QueueFull(FarmError):
    """Raised when a pool's queue is full, or the bodies of the farm's requests fill their room in Redis."""

    def __init__(self, waiting: int, reason: str) -> None:
        self.message = QUEUE_FULL_MESSAGES[reason]
        super().__init__(self.message)
        #: Requests waiting in the pool.
        self.waiting = waiting


@dataclass(frozen=True)
class Admission:
    """The position of an admitted request."""

    #: Requests waiting in the pool, including this one.
    queue_length: int
    #: Estimate of how many of them will be served first.
    ahead: int
    limit_usage: LimitUsage
    #: Seconds until a held request should ask whether it may go on (`RelayQueue.release_held`); 0 if it is not held.
    recheck_seconds: float = 0.0
    #: Whose requests those are, as `RequestsAhead.parse` of shared/observability/request_log.py reads it; '' for none.
    ahead_of: str = ""


@dataclass(frozen=True)
class SharedCount:
    """A request that shares an answer: it is counted, or waits for its key's requests per minute."""

    limit_usage: LimitUsage
    #: Requests that are counted first.
    ahead: int
    #: Seconds until it should ask again; 0 if it is counted.
    recheck_seconds: float


class RelayQueue:
    """Admits, withdraws and counts the requests of all pools."""

    def __init__(
        self, redis: Redis, max_queue: int, max_bytes: int = UNLIMITED_BYTES, queue_timeout: float = 300.0
    ) -> None:
        """`max_queue` requests may wait in a pool's queue; the bodies of all pools may have `max_bytes`.

        `queue_timeout`: seconds for which a request may wait, FARM_QUEUE_TIMEOUT.
        """
        self._redis = redis
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._queue_timeout = queue_timeout
        self._templates: dict[str, JobTemplate] = {}
        self._pipeline = AutoPipeline(redis)
        self._upload = BodyUpload(self._pipeline)
        self._enqueue = self._pipeline.register_script(*SCHEDULING_LUA, Path(__file__).with_name("enqueue.lua"))
        self._count_request = self._pipeline.register_script(
            *(Path(__file__).with_name(name) for name in ("limits.lua", "count_request.lua"))
        )
        self._count_shared = self._pipeline.register_script(
            *SCHEDULING_LUA, Path(__file__).with_name("count_shared.lua")
        )
        self._release_held = self._pipeline.register_script(*SCHEDULING_LUA, RELEASE_HELD_LUA)
        self._cancel = self._pipeline.register_script(*SCHEDULING_LUA, Path(__file__).with_name("cancel.lua"))

    def enqueue(
        self,
        request: RelayRequest,
        body: bytes | LargeBody,
        demand: bytes = b"",
        weight: float = 1.0,
        upstream_model: str = "",
    ) -> Admission:
        """Admits a request in one round trip; a large body is stored before. Raises QueueFull, LimitReached.

        `demand` comes from limits.encode_demand, b'' for a key without limits; `weight` is the key's.
        `upstream_model`: the upstream's name of the model, '' if it is the caller's.
        """
        body_ttl = request.deadline - request.enqueued_at + GRACE_SECONDS
        expires_at = request.deadline + GRACE_SECONDS
        interactive, batch = queue_keys(request.pool)
        upload, uploaded = keys.upload(request.id), 0
        if isinstance(body, LargeBody):
            self._upload.store(upload, body)
            body, uploaded = b"", len(body)
        reason, waiting, ahead, whose, wait, *window = self._enqueue(
            keys=[
                interactive,
                batch,
                Queue.redis_queues_keys,
                Job.key_for(request.id),
                keys.fair_queue(request.pool),
                keys.idle_workers(request.pool),
                upload,
            ],
            args=[
                self._max_queue,
                self._max_bytes,
                request.id,
                int(body_ttl * 1000),
                body,
                request.enqueued_at,
                expires_at,
                demand,
                Job.key_for(""),
                request.band,
                request.key,
                weight,
                min(self._queue_timeout, request.deadline - request.enqueued_at),
                uploaded,
                *chain.from_iterable(self._build_fields(request, upstream_model, limited=bool(demand)).items()),
            ],
        )
        if reason.decode() in QUEUE_FULL_MESSAGES:
            raise QueueFull(int(waiting), reason.decode())
        if reason == UPLOAD_LOST:
            raise RedisError("a body was lost on its way into Redis")
        usage = LimitUsage.decode(window)
        if reason:
            raise LimitReached(reason.decode(), float(wait), usage)
        return Admission(int(waiting), int(ahead), usage, float(wait), whose.decode())

    def release_held(self, key_id: str, request_id: str) -> float:
        """Lets the key's held requests go on as far as its limits allow; called when `recheck_seconds` have passed.

        Returns the seconds until this request should ask again, 0 if it is not held any more. Idempotent.
        """
        return float(self._release_held(keys=[], args=[key_id, request_id, "", Job.key_for(""), ""]))

    def count_request(self, key: ApiKey, now: float) -> LimitUsage:
        """Counts a request that makes no job against the key's requests per minute. Raises LimitReached."""
        if not key.rpm:
            return LimitUsage()
        wait, requests, reset = map(float, self._count_request(keys=[], args=[encode_demand(key, 0, now)]))
        usage = LimitUsage(int(requests), reset)
        if wait:
            raise LimitReached("requests", wait, usage)
        return usage

    def count_shared(self, key: ApiKey, now: float, patience: float, before: int | None) -> SharedCount:
        """Counts a request that gets the answer to another one against the requests per minute, which `key` has.

        `patience`: seconds for which it may wait; `before`: others that wait before it like this, None when it asks
        again. Raises LimitReached when it may not even wait.
        """
        args = [encode_demand(key, 0, now), patience, "" if before is None else before]
        state, wait, requests, reset, ahead = self._count_shared(keys=[], args=args)
        usage = LimitUsage(int(float(requests)), float(reset))
        if state == b"refused":
            raise LimitReached("requests", float(wait), usage)
        return SharedCount(usage, int(ahead), float(wait))

    def _build_fields(self, request: RelayRequest, upstream_model: str, *, limited: bool) -> dict[str, Any]:
        model = names.limited_model(upstream_model or request.model)
        return {
            **self._find_template(BANDS[request.band](request.pool)).render(request),
            FRONT_FIELD: keys.front_gone(request.front),
            KEY_FIELD: request.key,
            BAND_FIELD: request.band,
            ADMITTED_FIELD: request.enqueued_at,
            QUEUED_FIELD: 1,
            **({MODEL_FIELD: model} if model else {}),
            **({LIMITED_FIELD: 1} if limited else {}),
        }

    def _find_template(self, name: str) -> JobTemplate:
        """Returns the queue's job template, cached because making one takes RQ a round trip."""
        if name not in self._templates:
            self._templates[name] = JobTemplate(open_rq_queue(self._redis, name))
        return self._templates[name]

    def withdraw(self, pool: str, request_id: str) -> bool:
        """Withdraws a waiting request; returns False if a worker has it already or it is gone."""
        return self.cancel(pool, request_id, only_waiting=True) == "withdrawn"

    def cancel(
        self, pool: str, request_id: str, key_id: str = "", *, only_waiting: bool = False, reason: str = CLIENT_GONE
    ) -> str:
        """Withdraws a waiting request or stops a running one; returns `withdrawn`, `stopping` or `gone`.

        With `only_waiting` a running request is left alone; returns `running` then. With a `key_id`, what a job that
        is gone has reserved of the key's limits is given back. `reason` is how a stopped request appears in the log.
        """
        outcome = self._cancel(
            keys=[
                *queue_keys(pool),
                Job.key_for(request_id),
                keys.fair_queue(pool),
                keys.idle_workers(pool),
            ],
            args=[request_id, PUBSUB_CHANNEL_TEMPLATE % "", int(only_waiting), Job.key_for(""), key_id, reason],
        )
        return cast("bytes", outcome).decode()

    def count_waiting(self, pool: str) -> int:
        return sum(int(self._pipeline.execute("LLEN", key)) for key in queue_keys(pool))

    def find_vanished(self, request_ids: Iterable[str]) -> set[str]:
        """Returns the requests whose job is no longer in Redis (ended, or deleted by an operator)."""
        ids = list(request_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.exists(Job.key_for(request_id))
            replies = pipe.execute()
        return {request_id for request_id, exists in zip(ids, replies, strict=True) if not exists}


@cache
def queue_keys(pool: str) -> tuple[str, str]:
    """Returns the Redis keys of a pool's two RQ queues, interactive first."""
    interactive, batch = (f"{Queue.redis_queue_namespace_prefix}{name(pool)}" for name in BANDS.values())
    return interactive, batch


@cache
def held_registry_keys(pool: str) -> tuple[str, str]:
    """Returns the Redis keys of RQ's registries that list a pool's held requests, interactive first."""
    interactive, batch = (DeferredJobRegistry.key_template.format(name(pool)) for name in BANDS.values())
    return interactive, batch


def open_rq_queue(redis: Redis, name: str) -> Queue:
    """Opens an RQ queue with JSON as serializer, never pickle."""
    return Queue(name, connection=redis, serializer=JSONSerializer)
