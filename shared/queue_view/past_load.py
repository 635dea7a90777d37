"""The load of the past, from the request log: when requests came, and how much of the accounts' time they took."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from redis import Redis

from shared.credentials.private import caller_id
from shared.observability.request_log import FailedAttempt, LogEntry, LogFilter, RequestLog, StoredEntry
from shared.observability.samples import Samples
from shared.observability.usage import SumsQuery, UsageSums
from shared.queue_view.planner import Demand, Pause

HOUR_SECONDS = 3600
#: Requests of a load, unless more are asked for; when a period has more, the latest ones are taken. A front reads and
#: replays so many within 0.2 s.
MAX_REQUESTS = 5000
#: Times as many entries are looked at for them: other pools' are in the same log.
ENTRIES_PER_REQUEST = 2
#: Entries between two calls of `pause`.
ENTRIES_BETWEEN_PAUSES = 50
#: What accounts did while they could not have served (shared/observability/tape.py).
OUT_OF_SERVICE = ("resting", "refreshing", "upstream_down", "suspended")


@dataclass(frozen=True)
class Load:
    """The requests of a period, in order of arrival. Times are seconds since the epoch."""

    demands: Sequence[Demand]
    since: float
    until: float
    #: Whether the period had more requests, or its log is so long, that only the latest of them are here.
    is_cut: bool
    #: Requests that were refused because the queue was full; they are not among the demands.
    refused: int

    @property
    def mean_seconds(self) -> float:
        return sum(demand.seconds for demand in self.demands) / len(self.demands) if self.demands else 0.0


def read_load(redis: Redis, pool: str, since: float, until: float, pause: Pause, most: int = MAX_REQUESTS) -> Load:
    """The latest `most` requests of a configured pool; private credentials serve only their owners and are left out."""
    found: list[Demand] = []
    refused, seen, last_seen_at, most_seen = 0, 0, until, ENTRIES_PER_REQUEST * most
    for stored in islice(list_entries(redis, since, until, pause), most_seen + 1):
        seen, last_seen_at = seen + 1, stored.time
        if stored.entry.pool != pool or stored.entry.key.startswith(caller_id("")):
            continue
        if is_demand(stored.entry):
            found.append(Demand(stored.time - stored.entry.total_ms / 1000, count_seconds(stored.entry)))
        elif stored.entry.code == "queue_full":
            refused += stored.count
        if len(found) > most:
            break
    is_cut = len(found) > most or seen > most_seen
    taken = sorted(found[:most], key=lambda demand: demand.arrived_at)
    worked = [demand.seconds for demand in taken if demand.seconds]
    mean = sum(worked) / len(worked) if worked else 0.0
    demands = [Demand(at, seconds or mean) for at, seconds in taken]
    return Load(demands, last_seen_at if is_cut else since, until, is_cut, refused)


def list_entries(redis: Redis, since: float, until: float, pause: Pause) -> Iterator[StoredEntry]:
    """All entries of the time, newest first; `pause` is called now and then."""
    for number, stored in enumerate(RequestLog(redis).read_newest_first(LogFilter(since, until))):
        if number % ENTRIES_BETWEEN_PAUSES == 0:
            pause()
        yield stored


def is_demand(entry: LogEntry) -> bool:
    """Whether a request was admitted: an account worked on it, or it waited until it gave up."""
    return bool(entry.credential or entry.queue_ms)


def count_seconds(entry: LogEntry) -> float:
    """Seconds of accounts' time: the last attempt's, and those of the failed ones before; 0 if none got it."""
    if not entry.credential:
        return 0.0
    own = max(0, entry.total_ms - entry.queue_ms) / 1000
    if not entry.tried:
        return own
    failed = [each for each in FailedAttempt.parse(entry.tried) if (each.started_ms or 0) < entry.queue_ms]
    return own + sum(each.milliseconds for each in failed) / 1000


def find_busiest_hour(redis: Redis, pool: str, since: float, until: float) -> float:
    """The start of the hour with the most requests, in seconds since the epoch; 0 if there was none."""
    sums = UsageSums(redis).query(SumsQuery(since, until, group_by=("time",), filters={"pool": pool}))
    busiest = max(sums, key=lambda row: row["requests"], default=None)
    return float(busiest["time"]) if busiest else 0.0


def measure_service_share(redis: Redis, pool: str, since: float, until: float) -> float | None:
    """Share of the accounts' time in which they served or could have, by the minutes' samples; None without any."""
    total = out = 0.0
    for interval in Samples(redis).read(60, since, until):
        seconds = interval.pools[pool].account_seconds if pool in interval.pools else {}
        total += sum(seconds.values())
        out += sum(seconds.get(state, 0.0) for state in OUT_OF_SERVICE)
    return round(1 - out / total, 4) if total else None
