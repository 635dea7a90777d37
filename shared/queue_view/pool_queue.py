"""One pool's queue as operators see it: who waits, in the order of service, until when, and whose turn that is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from redis import Redis
from rq.job import Job

from shared import clock, keys
from shared.observability.names_by_id import find_key_names
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.protocol.relay_queue import ADMITTED_FIELD, BANDS
from shared.queue_view.live_requests import LiveRequests, RunningRequest, WaitingRequest
from shared.queue_view.service_order import Servers, ServiceOrder, Turn
from shared.queue_view.snapshot import QueueSnapshot, read_snapshot

#: Requests whose admission time is read, so that a batch request's turn and the oldest wait can be told.
MAX_TIMES_READ = 5000


@dataclass(frozen=True)
class KeyShare:
    """An API key with requests that wait or run in the pool."""

    key: str
    key_name: str
    weight: float
    waiting: int
    running: int
    #: Its share of the workers by weight, of the keys that wait or run.
    entitled: float
    #: Turn of its next request; 0 if none of those that were read is its.
    next_position: int


@dataclass(frozen=True)
class PoolQueue:
    """A pool's queue."""

    status: PoolStatus
    #: Band -> seconds for which its oldest request has waited; None when nothing waits.
    oldest: Mapping[str, float | None]
    #: Average seconds of a worker's time per request, of the latest ones; None when none was measured.
    mean_seconds: float | None
    #: Seconds until all that wait now are started; None when that can't be told.
    drained_in: float | None
    waiting: Sequence[WaitingRequest]
    held: Sequence[WaitingRequest]
    keys: Sequence[KeyShare]


class QueueView:
    """Reads the queues of pools."""

    def __init__(self, redis: Redis, batch_age: float, batch_turns: int) -> None:
        """`batch_age`, `batch_turns`: FARM_BATCH_AGE, FARM_BATCH_TURNS."""
        self._redis = redis
        self._batch_age = batch_age
        self._batch_turns = batch_turns
        self._requests = LiveRequests(redis)

    def read(self, pools: Sequence[str], most: int) -> list[PoolQueue]:
        """The queues of these pools, each with its first `most` requests."""
        return [self._read(status, most) for status in read_pool_statuses(self._redis, pools)]

    def find_turn(self, pool: str, request_id: str, most: int) -> tuple[int, float | None] | None:
        """Position of a waiting request, from 1, and seconds until it is started; None beyond the first `most`."""
        (status,) = read_pool_statuses(self._redis, [pool])
        snapshot, now = read_snapshot(self._redis, pool, most), clock.now()
        servers, admitted_at = self._find_servers(status, snapshot, now), self._read_admissions(snapshot)
        turns = ServiceOrder(snapshot, servers, admitted_at, now).list_turns(most)
        return next(((place, turn.eta) for place, turn in enumerate(turns, 1) if turn.request == request_id), None)

    def list_running(self, pools: Sequence[str], most: int) -> list[RunningRequest]:
        """The running requests of these pools, the `most` oldest, the oldest first."""
        started = [(each, pool) for pool in pools for each in read_snapshot(self._redis, pool, 0).running]
        started = sorted(started, key=lambda found: found[0].started_at)[:most]
        running = [
            request
            for pool in pools
            for request in self._requests.describe_started(pool, [each for each, name in started if name == pool])
        ]
        return sorted(running, key=lambda request: request.started_at)

    def _read(self, status: PoolStatus, most: int) -> PoolQueue:
        snapshot, now = read_snapshot(self._redis, status.name, most), clock.now()
        admitted_at = self._read_admissions(snapshot)
        servers = self._find_servers(status, snapshot, now)
        turns = ServiceOrder(snapshot, servers, admitted_at, now).list_turns(most)
        return PoolQueue(
            status=status,
            oldest={band: find_oldest(snapshot, band, admitted_at, now) for band in BANDS},
            mean_seconds=snapshot.cost,
            drained_in=estimate_drain(status, snapshot, servers, turns),
            waiting=self._requests.describe_turns(status.name, turns),
            held=self._requests.list_held(status.name, most) if any(status.held.values()) else [],
            keys=self._list_shares(snapshot, turns),
        )

    def _read_admissions(self, snapshot: QueueSnapshot) -> dict[str, float]:
        """When requests were admitted: those at the head of a line, the retries, and all of the batch band."""
        retries = [request for band in BANDS for request in snapshot.retries[band]]
        heads = [line.requests[0] for line in snapshot.lines["interactive"] if line.requests]
        batch = [request for line in snapshot.lines["batch"] for request in line.requests]
        wanted = list(islice([*retries, *heads, *batch], MAX_TIMES_READ))
        with self._redis.pipeline(transaction=False) as pipe:
            for request in wanted:
                pipe.hget(Job.key_for(request), ADMITTED_FIELD)
            return {request: float(at) for request, at in zip(wanted, pipe.execute(), strict=True) if at}

    def _find_servers(self, status: PoolStatus, snapshot: QueueSnapshot, now: float) -> Servers:
        """The workers that serve the pool beside those that run a request."""
        in_service = status.workers["busy"] + status.workers["idle"]
        return Servers(
            idle=max(0, in_service - len(snapshot.running)),
            resting=self._list_ends_of_rest(status.name, now) if status.credentials["cooling"] else (),
            are_serving=not (status.upstream_down or status.pause.since),
            batch_age=self._batch_age,
            batch_turns=self._batch_turns,
        )

    def _list_ends_of_rest(self, pool: str, now: float) -> list[float]:
        """Seconds from now at which the cooldowns of the pool's credentials end."""
        states = self._redis.hgetall(keys.credentials(pool)).items()
        with self._redis.pipeline(transaction=False) as pipe:
            for credential_id in (id_ for id_, state in states if state == b"cooling"):
                pipe.hget(keys.credential(credential_id.decode()), "until")
            ends = [float(until) for until in pipe.execute() if until]
        return [max(0.0, until - now) for until in ends]

    def _list_shares(self, snapshot: QueueSnapshot, turns: Sequence[Turn]) -> list[KeyShare]:
        waiting, running = defaultdict[str, int](int), defaultdict[str, int](int)
        weights: dict[str, float] = {}
        for band in BANDS:
            for line in snapshot.lines[band]:
                waiting[line.key] += line.length
                weights[line.key] = line.weight
        for started in snapshot.running:
            running[started.key] += 1
        found = [key for key in {**waiting, **running} if key]
        names, total = find_key_names(self._redis, found), sum(weights.get(key, 1.0) for key in found)
        positions: dict[str, int] = {}
        for position, turn in enumerate(turns, 1):
            positions.setdefault(turn.key, position)
        shares = [
            KeyShare(
                key=key,
                key_name=names.get(key, ""),
                weight=weights.get(key, 1.0),
                waiting=waiting.get(key, 0),
                running=running.get(key, 0),
                entitled=round(weights.get(key, 1.0) / total, 4),
                next_position=positions.get(key, 0),
            )
            for key in found
        ]
        return sorted(shares, key=lambda share: (-share.waiting, -share.running, share.key))


def find_oldest(snapshot: QueueSnapshot, band: str, admitted_at: Mapping[str, float], now: float) -> float | None:
    """Seconds for which the band's oldest request has waited. Each line and the retries begin with their oldest."""
    heads = [line.requests[0] for line in snapshot.lines[band] if line.requests]
    times = [admitted_at[head] for head in (*heads, *snapshot.retries[band][:1]) if head in admitted_at]
    return round(max(0.0, now - min(times)), 3) if times else None


def estimate_drain(
    status: PoolStatus, snapshot: QueueSnapshot, servers: Servers, turns: Sequence[Turn]
) -> float | None:
    """Seconds until all requests that wait now are started, if nothing arrives."""
    waiting = sum(status.queue_depth.values())
    if not waiting:
        return 0.0
    workers = len(snapshot.running) + servers.idle
    last = turns[-1].eta if turns else None
    if last is None or not workers or snapshot.cost is None:
        return None
    return round(last + max(0, waiting - len(turns)) * snapshot.cost / workers, 3)
