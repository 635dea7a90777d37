"""The waiting and running requests of a pool, with what operators want to know of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from redis import Redis
from rq.job import Job

from shared import names
from shared.observability.names_by_id import find_credential_names, find_key_names
from shared.observability.request_log import sanitize_model_name
from shared.protocol.job_data import decode_request
from shared.protocol.relay_queue import ADMITTED_FIELD, BAND_FIELD, BANDS, KEY_FIELD, held_registry_keys
from shared.queue_view.service_order import Turn
from shared.queue_view.snapshot import Started

#: Fields of a job's hash that are read.
JOB_FIELDS = ("data", KEY_FIELD, BAND_FIELD, ADMITTED_FIELD, "number_of_retries", "farm_begun", "worker_name")


@dataclass(frozen=True)
class LiveRequest:
    """A request that waits or runs. Times are seconds since the epoch."""

    request: str
    pool: str
    key: str = ""
    key_name: str = ""
    model: str = ""
    endpoint: str = ""
    band: str = "interactive"
    stream: bool = False
    admitted_at: float = 0.0
    #: Attempts that have failed.
    failed_attempts: int = 0


@dataclass(frozen=True)
class WaitingRequest(LiveRequest):
    """A request that waits."""

    #: `queued`; `retry` for one whose attempt has failed; `held` by a limit of its API key.
    state: str = "queued"
    #: Its turn, from 1; 0 for a held one, which has none.
    position: int = 0
    #: Seconds until it is started; None when that can't be told.
    eta: float | None = None


@dataclass(frozen=True)
class RunningRequest(LiveRequest):
    """A request that a worker has begun."""

    credential: str = ""
    #: Label or masked account of the credential.
    credential_name: str = ""
    started_at: float = 0.0
    #: Whether its reply has begun, so that it isn't retried any more.
    has_begun: bool = False


@dataclass(frozen=True)
class _Job:
    """What its hash says."""

    request: LiveRequest
    worker: str
    has_begun: bool


class LiveRequests:
    """Reads what is known of requests whose jobs exist."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def describe_turns(self, pool: str, turns: Sequence[Turn]) -> list[WaitingRequest]:
        """The requests of these turns, in order; those that have left the queue meanwhile are left out."""
        jobs = self._read_jobs(pool, [turn.request for turn in turns])
        return [
            WaitingRequest(
                **vars(jobs[turn.request].request),
                state="retry" if turn.is_retry else "queued",
                position=position,
                eta=None if turn.eta is None else round(turn.eta, 3),
            )
            for position, turn in enumerate(turns, 1)
            if turn.request in jobs
        ]

    def list_held(self, pool: str, most: int) -> list[WaitingRequest]:
        """Requests that wait for a limit of their API key, the oldest of each band first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for registry in held_registry_keys(pool):
                pipe.zrange(registry, 0, most - 1)
            ids = [job_id.decode() for found in pipe.execute() for job_id in found][:most]
        jobs = self._read_jobs(pool, ids)
        return [WaitingRequest(**vars(jobs[each].request), state="held") for each in ids if each in jobs]

    def describe_started(self, pool: str, started: Sequence[Started]) -> list[RunningRequest]:
        """The running requests, in order; those that have ended meanwhile are left out."""
        jobs = self._read_jobs(pool, [each.request for each in started])
        running = [
            RunningRequest(
                **vars(jobs[each.request].request),
                credential=names.credential_id_of(jobs[each.request].worker),
                started_at=each.started_at,
                has_begun=jobs[each.request].has_begun,
            )
            for each in started
            if each.request in jobs
        ]
        labels = find_credential_names(self._redis, [request.credential for request in running])
        return [replace(request, credential_name=labels.get(request.credential, "")) for request in running]

    def find(self, request_id: str) -> LiveRequest | None:
        """A request that waits or runs; None if there is none of that id."""
        job = self._read_jobs("", [request_id]).get(request_id)
        return job.request if job else None

    def _read_jobs(self, pool: str, ids: Collection[str]) -> dict[str, _Job]:
        with self._redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hmget(Job.key_for(request_id), JOB_FIELDS)
            replies = pipe.execute()
        jobs = {
            request_id: build_job(request_id, pool, fields)
            for request_id, fields in zip(ids, replies, strict=True)
            if fields[0]
        }
        key_names = find_key_names(self._redis, [job.request.key for job in jobs.values()])
        return {
            request_id: replace(job, request=replace(job.request, key_name=key_names.get(job.request.key, "")))
            for request_id, job in jobs.items()
        }


def build_job(request_id: str, pool: str, fields: Sequence[bytes | None]) -> _Job:
    """`fields` are those of JOB_FIELDS, in order. What can't be read stays empty."""
    data, key, band, admitted_at, retries, begun, worker = fields
    request = decode_request(data or b"")
    name = (band or b"").decode(errors="replace")
    live = LiveRequest(
        request=request_id,
        pool=request.pool if request else pool,
        key=(key or b"").decode(errors="replace"),
        model=sanitize_model_name(request.model) if request else "",
        endpoint=request.path.partition("?")[0] if request else "",
        band=name if name in BANDS else "interactive",
        stream=bool(request and request.stream),
        admitted_at=float(admitted_at or 0),
        failed_attempts=int(retries or 0),
    )
    return _Job(live, (worker or b"").decode(errors="replace"), bool(begun))
