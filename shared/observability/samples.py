"""Samples of the farm's counters: one every five seconds for an hour, and one a minute for a day.

A sample holds running totals, not differences, so that it doesn't matter which process takes it, how late, or whether
one is missing: the reader subtracts the sample before.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from shared import clock, keys
from shared.observability.counters import METRICS, CounterKey, read_counters
from shared.observability.pool_status import read_pool_statuses
from shared.parsing import parse_json_object

#: Step in seconds -> samples kept.
STEPS = {5: 720, 60: 1440}
#: Histograms that are sampled.
HISTOGRAMS = ("queue_wait_seconds", "time_to_first_token_seconds")
#: Percentiles that are told of them.
PERCENTILES = {"p50": 0.5, "p95": 0.95}


@dataclass(frozen=True)
class Totals:
    """Running totals of the farm, as one sample holds them."""

    #: Pool -> HTTP status -> requests that have ended.
    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: Pool -> what workers did (tape.LETTERS) -> seconds.
    account_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: Histogram -> count of each bucket.
    histograms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: Pool -> figures of that moment: waiting, held, busy, workers; and `served`, the number of jobs that have ended.
    now: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolRates:
    """One pool between two samples; the last four are of the later one's moment."""

    finished: int = 0
    failed: int = 0
    #: Requests that were admitted, as the others tell.
    arrived: int = 0
    account_seconds: Mapping[str, float] = field(default_factory=dict)
    waiting: int = 0
    held: int = 0
    busy: int = 0
    workers: int = 0


@dataclass(frozen=True)
class Interval:
    """What happened between two samples."""

    #: Its end, in seconds since the epoch, and its length.
    time: float
    seconds: float
    pools: Mapping[str, PoolRates]
    #: HTTP status -> requests.
    statuses: Mapping[str, int]
    #: Percentile -> seconds, None when there was no request. Interpolated within the buckets of the histogram.
    queue_wait: Mapping[str, float | None]
    first_byte: Mapping[str, float | None]


class Samples:
    """Takes and reads samples."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        #: Step -> the slot for which this process has looked last.
        self._slots: dict[int, int] = {}

    def take(self, pools: Sequence[str]) -> None:
        """Takes the samples that are due, unless another process has."""
        now = int(clock.now())
        slots = {step: now // step for step in STEPS if now // step != self._slots.get(step)}
        due = [step for step, slot in slots.items() if slot > self._last_slot(step)]
        encoded = json.dumps(vars(self._read_totals(pools))) if due else ""
        for step in due:
            try:
                # The id is the slot, so that a second sample of it is refused.
                id_ = f"{slots[step] * step * 1000}-0"
                self._redis.xadd(keys.samples(step), {"e": encoded}, id=id_, maxlen=STEPS[step], approximate=True)
            except ResponseError:
                pass
        self._slots |= slots

    def _last_slot(self, step: int) -> int:
        last = self._redis.xrevrange(keys.samples(step), count=1)
        return int(last[0][0].partition(b"-")[0]) // 1000 // step if last else 0

    def _read_totals(self, pools: Sequence[str]) -> Totals:
        counters = read_counters(self._redis)
        statuses = read_pool_statuses(self._redis, pools)
        served = self._redis.mget([keys.served_jobs(pool) for pool in pools]) if pools else []
        return Totals(
            requests=sum_by(counters, "requests", lambda labels: (labels[0], labels[2])),
            account_seconds=sum_by(counters, "account_seconds", lambda labels: (labels[0], labels[1])),
            histograms={name: read_buckets(counters, name) for name in HISTOGRAMS},
            now={
                status.name: {
                    "waiting": sum(status.queue_depth.values()),
                    "held": sum(status.held.values()),
                    "busy": status.workers["busy"],
                    "workers": sum(status.workers.values()),
                    "served": int(count or 0),
                }
                for status, count in zip(statuses, served, strict=True)
            },
        )

    def measure_inflow(self, seconds: float) -> dict[str, float]:
        """Pool -> requests per second that joined its queue in about the last `seconds` and did not leave unserved."""
        key, since = keys.samples(min(STEPS)), clock.now() - seconds
        samples = [*self._redis.xrange(key, int(since * 1000), count=1), *self._redis.xrevrange(key, count=1)]
        if len(samples) < 2 or samples[0][0] == samples[1][0]:
            return {}
        (first, before), (last, after) = (
            (read_time(id_), decode_totals(values.get(b"e", b""))) for id_, values in samples
        )
        return {
            pool: max(0.0, count_joined(now) - count_joined(then)) / (last - first)
            for pool, now in after.now.items()
            if "served" in now and "served" in (then := before.now.get(pool, {}))
        }

    def read(self, step: int, since: float, until: float) -> Iterator[Interval]:
        """The intervals that end between these times, in seconds since the epoch, the oldest first."""
        first = max(0, int(since * 1000) - 1)
        before = self._redis.xrevrange(keys.samples(step), first, "-", count=1)
        last = "+" if until == float("inf") else int(until * 1000)
        samples = [*before, *self._redis.xrange(keys.samples(step), first + 1, last)]
        previous: tuple[float, Totals] | None = None
        for id_, values in samples:
            at, totals = read_time(id_), decode_totals(values.get(b"e", b""))
            if previous:
                yield compare(previous[1], totals, at, at - previous[0])
            previous = at, totals

    def sum_up(self, step: int, since: float) -> Interval | None:
        """All that happened since a time as one interval; None before there are two samples."""
        first = self._redis.xrange(keys.samples(step), int(since * 1000), count=1)
        last = self._redis.xrevrange(keys.samples(step), count=1)
        if not first or first[0][0] == last[0][0]:
            return None
        (began, before), (ended, after) = (
            (int(id_.partition(b"-")[0]) / 1000, decode_totals(values.get(b"e", b"")))
            for id_, values in (*first, *last)
        )
        return compare(before, after, ended, ended - began)


def read_time(sample_id: bytes) -> float:
    """Seconds since the epoch."""
    return int(sample_id.partition(b"-")[0]) / 1000


def count_joined(now: Mapping[str, float]) -> float:
    """Requests that have ever joined a pool's queue, less those that left it unserved."""
    return now["served"] + now.get("waiting", 0) + now.get("busy", 0)


def sum_by(counters: Mapping[CounterKey, float], name: str, group: Any) -> dict[str, dict[str, float]]:
    """Sums a counter by two of its labels."""
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (metric, labels, part), value in counters.items():
        if metric == name and not part and len(labels) == len(METRICS[name].labels):
            first, second = group(labels)
            sums[first][second] += round(value, 3)
    return {first: dict(values) for first, values in sums.items()}


def read_buckets(counters: Mapping[CounterKey, float], name: str) -> list[float]:
    return [counters.get((name, (), f"le{bucket}"), 0.0) for bucket in range(len(METRICS[name].bounds) + 1)]


def decode_totals(encoded: bytes) -> Totals:
    """What can't be read, of another version, counts as nothing."""
    values = parse_json_object(encoded)
    return Totals(**{name: values[name] for name in Totals.__dataclass_fields__ if isinstance(values.get(name), dict)})


def compare(before: Totals, after: Totals, at: float, seconds: float) -> Interval:
    """The interval between two samples."""
    statuses: defaultdict[str, int] = defaultdict(int)
    for pool, by_status in after.requests.items():
        for status, count in by_status.items():
            statuses[status] += gain(before.requests.get(pool, {}).get(status, 0), count)
    waits, first_bytes = (
        find_percentiles(name, before.histograms.get(name, ()), after.histograms.get(name, ())) for name in HISTOGRAMS
    )
    pools = {pool: compare_pools(before, after, pool) for pool in after.now}
    return Interval(at, seconds, pools, {name: count for name, count in statuses.items() if count}, waits, first_bytes)


def compare_pools(before: Totals, after: Totals, pool: str) -> PoolRates:
    old, new = before.requests.get(pool, {}), after.requests.get(pool, {})
    ended = {status: gain(old.get(status, 0), count) for status, count in new.items()}
    then, now = before.now.get(pool, {}), after.now[pool]
    finished = sum(ended.values())
    present = ("waiting", "held", "busy")
    more = sum(now.get(name, 0) for name in present) - sum(then.get(name, 0) for name in present)
    seconds = before.account_seconds.get(pool, {})
    return PoolRates(
        finished=finished,
        failed=sum(count for status, count in ended.items() if status >= "400"),
        arrived=max(0, int(finished + more)),
        account_seconds={
            state: round(max(0.0, total - seconds.get(state, 0.0)), 3)
            for state, total in after.account_seconds.get(pool, {}).items()
        },
        **{name: int(now.get(name, 0)) for name in (*present, "workers")},
    )


def gain(before: float, after: float) -> int:
    """0 if the counter has been set back: Redis has lost data."""
    return max(0, int(after - before))


def find_percentiles(name: str, before: Sequence[float], after: Sequence[float]) -> dict[str, float | None]:
    """Estimates percentiles of what a histogram has gained, within its buckets."""
    gained = [max(0.0, count - old) for count, old in zip(after, before or [0.0] * len(after), strict=False)]
    return {label: estimate_quantile(METRICS[name].bounds, gained, share) for label, share in PERCENTILES.items()}


def estimate_quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The value below which that share lies, None without any; at most the last bound."""
    total, below = sum(counts), 0.0
    for bucket, count in enumerate(counts):
        if count and below + count >= share * total:
            low = bounds[bucket - 1] if bucket else 0.0
            high = bounds[bucket] if bucket < len(bounds) else low
            return round(low + (high - low) * (share * total - below) / count, 4)
        below += count
    return None
