"""One pool's queue as operators see it: who waits, in the order of service, until when, and whose turn that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from redis import Redis
from rq.job import Job

from shared import clock, keys
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.observability.samples import Samples
from shared.protocol.relay_queue import ADMITTED_FIELD, BANDS
from shared.queue_view.batch_patience import BatchPatience, find_patience
from shared.queue_view.drain_clock import DrainClock, find_capacity, foretell
from shared.queue_view.fairness import FairShare
from shared.queue_view.key_shares import KeyShare, read_key_shares
from shared.queue_view.live_requests import LiveRequests, RunningRequest, WaitingRequest
from shared.queue_view.service_order import Servers, ServiceOrder, Turn
from shared.queue_view.snapshot import QueueSnapshot, read_snapshot
from shared.settings.schema import Settings

#: Requests whose admission time is read, so that a batch request's turn and the oldest wait can be told.
MAX_TIMES_READ = 5000
#: Seconds over which arrivals are measured; accounts that there might be more.
INFLOW_SECONDS, MORE_ACCOUNTS = 60.0, 10


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
    #: What each API key got in the last five minutes, the one with the most first.
    fairness: Sequence[FairShare] = ()
    clock: DrainClock = field(default_factory=DrainClock)
    #: None while no batch request waits.
    patience: BatchPatience | None = None


class QueueView:
    """Reads the queues of pools."""

    def __init__(self, redis: Redis, batch_age: float, batch_turns: int, max_queue: int = Settings.max_queue) -> None:
        """FARM_BATCH_AGE, FARM_BATCH_TURNS, FARM_MAX_QUEUE."""
        self._redis = redis
        self._batch_age = batch_age
        self._batch_turns = batch_turns
        self._max_queue = max_queue
        self._requests = LiveRequests(redis)

    def read(self, pools: Sequence[str], most: int, more_accounts: int = MORE_ACCOUNTS) -> list[PoolQueue]:
        """The queues of these pools, each with its first `most` requests, and what more accounts would change."""
        inflow = Samples(self._redis).measure_inflow(INFLOW_SECONDS)
        return [
            self._read(status, most, inflow.get(status.name), more_accounts)
            for status in read_pool_statuses(self._redis, pools)
        ]

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

    def _read(self, status: PoolStatus, most: int, inflow: float | None, more_accounts: int) -> PoolQueue:
        snapshot, now = read_snapshot(self._redis, status.name, most), clock.now()
        admitted_at = self._read_admissions(snapshot)
        servers = self._find_servers(status, snapshot, now)
        replay = Replay(snapshot, admitted_at, now, most)
        turns = replay.list_turns(servers)
        drain = self._read_clock(status, replay, servers, turns, inflow, more_accounts)
        shares = read_key_shares(self._redis, status.name, snapshot, turns)
        oldest = {band: find_oldest(snapshot, band, admitted_at, now) for band in BANDS}
        return PoolQueue(
            status=status,
            oldest=oldest,
            mean_seconds=snapshot.cost,
            drained_in=drain.empty_in,
            waiting=self._requests.describe_turns(status.name, turns),
            held=self._requests.list_held(status.name, most) if any(status.held.values()) else [],
            keys=shares.present,
            clock=drain,
            fairness=shares.ledger,
            patience=find_patience(oldest["batch"], snapshot.turns, servers, turns),
        )

    def _read_clock(
        self,
        status: PoolStatus,
        replay: "Replay",
        servers: Servers,
        turns: Sequence[Turn],
        inflow: float | None,
        more_accounts: int,
    ) -> DrainClock:
        waiting = sum(status.queue_depth.values())
        workers = len(replay.snapshot.running) + servers.idle
        capacity = find_capacity(workers, replay.snapshot.cost, are_serving=servers.are_serving)
        room = self._max_queue - max(status.queue_depth.values())
        empty_in_at_rate, full_in = foretell(waiting, room, inflow, capacity)
        more = replace(servers, idle=servers.idle + more_accounts)
        return DrainClock(
            arrival_rate=None if inflow is None else round(inflow, 4),
            capacity=capacity,
            empty_in=replay.estimate_drain(waiting, servers, turns),
            more_accounts=more_accounts,
            empty_in_with_more=replay.estimate_drain(waiting, more, replay.list_turns(more)),
            empty_in_at_rate=empty_in_at_rate,
            full_in=full_in,
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


def find_oldest(snapshot: QueueSnapshot, band: str, admitted_at: Mapping[str, float], now: float) -> float | None:
    """Seconds for which the band's oldest request has waited. Each line and the retries begin with their oldest."""
    heads = [line.requests[0] for line in snapshot.lines[band] if line.requests]
    times = [admitted_at[head] for head in (*heads, *snapshot.retries[band][:1]) if head in admitted_at]
    return round(max(0.0, now - min(times)), 3) if times else None


@dataclass(frozen=True)
class Replay:
    """The order of service of a snapshot, by what serves it."""

    snapshot: QueueSnapshot
    admitted_at: dict[str, float]
    now: float
    most: int

    def list_turns(self, servers: Servers) -> list[Turn]:
        return ServiceOrder(self.snapshot, servers, self.admitted_at, self.now).list_turns(self.most)

    def estimate_drain(self, waiting: int, servers: Servers, turns: Sequence[Turn]) -> float | None:
        """Seconds until all of the requests that wait now are started, if nothing arrives."""
        if not waiting:
            return 0.0
        cost, workers = self.snapshot.cost, len(self.snapshot.running) + servers.idle
        last = turns[-1].eta if turns else None
        if last is None or not workers or cost is None:
            return None
        return round(last + max(0, waiting - len(turns)) * cost / workers, 3)
