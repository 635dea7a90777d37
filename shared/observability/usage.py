"""Reads usage: requests and tokens per hour and UTC day, by key, pool and model, and by pool and credential.

Each hour and day is a Redis hash of at most MAX_SUM_FIELDS fields of about 100 bytes. An hour with 100 credentials, 10
keys and 5 models has 750 fields, 75 KB. workers/process/roll_up.lua writes them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from shared import keys

#: Fields per hour or day; beyond that, roll_up.lua counts further models as `(others)`.
MAX_SUM_FIELDS = 20_000
#: Days for which daily sums are kept.
DAY_SUMS_TTL_DAYS = 400
SEPARATOR = "\x1f"
METRICS = ("requests", "failed", "prompt_tokens", "completion_tokens", "estimated_tokens")
#: Kind of a field -> what it is grouped by.
FIELD_KINDS = {"k": ("key", "pool", "model"), "c": ("pool", "credential")}
#: Hours or days per round trip that asks which of them exist.
EXISTS_BATCH = 500
STEP_SECONDS = {"hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class SumsQuery:
    """Query for usage. Times are seconds since the epoch, widened to whole hours or days."""

    since: float
    until: float
    step: str = "hour"
    #: Any of `time`, `key`, `pool`, `model`, or of `time`, `pool`, `credential`.
    group_by: tuple[str, ...] = ()
    #: Name -> required value.
    filters: Mapping[str, str] = field(default_factory=dict)

    @property
    def field_kind(self) -> str:
        return "c" if "credential" in (*self.group_by, *self.filters) else "k"

    def bucket_starts(self) -> range:
        """Start of each hour or day; skips days beyond the retention period."""
        seconds = STEP_SECONDS[self.step]
        first = max(self.since, self.until - DAY_SUMS_TTL_DAYS * STEP_SECONDS["day"])
        return range(int(first // seconds) * seconds, int(self.until) + 1, seconds)


class UsageSums:
    """Reads the sums of hours and days."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def query(self, query: SumsQuery) -> list[dict[str, Any]]:
        """Returns one row per group, sorted, with the `group_by` values and the metrics."""
        groups: defaultdict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(METRICS, 0))
        for at, names, metric, amount in self._read_amounts(query):
            values = {**names, "time": at}
            if all(names.get(name) == value for name, value in query.filters.items()):
                groups[tuple(values[name] for name in query.group_by)][metric] += amount
        return [
            {
                **dict(zip(query.group_by, group, strict=True)),
                **sums,
                "total_tokens": sums["prompt_tokens"] + sums["completion_tokens"],
            }
            for group, sums in sorted(groups.items())
        ]

    def _read_amounts(self, query: SumsQuery) -> Iterator[tuple[int, dict[str, str], str, int]]:
        for at in self._stored_buckets(query):
            for stored, amount in self._redis.hgetall(bucket_key(query.step, at)).items():
                kind, metric, *values = stored.decode().split(SEPARATOR)
                if kind == query.field_kind:
                    yield at, dict(zip(FIELD_KINDS[kind], values, strict=False)), metric, int(amount)

    def _stored_buckets(self, query: SumsQuery) -> Iterator[int]:
        """Start of each hour or day that has sums. A year has thousands of hours, so most are ruled out in bulk."""
        starts = query.bucket_starts()
        for first in range(0, len(starts), EXISTS_BATCH):
            batch = starts[first : first + EXISTS_BATCH]
            pipeline = self._redis.pipeline(transaction=False)
            for at in batch:
                pipeline.exists(bucket_key(query.step, at))
            yield from (at for at, exists in zip(batch, pipeline.execute(), strict=True) if exists)


def bucket_key(step: str, at: int) -> str:
    return keys.usage_hour(at) if step == "hour" else keys.usage_day(at)
