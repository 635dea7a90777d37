"""Reads usage: requests and tokens per hour and UTC day, by key, pool and model, and by pool and credential.

Each hour and day is a Redis hash of at most MAX_SUM_FIELDS fields of about 100 bytes. An hour with 100 credentials, 10
keys and 5 models has 750 fields, 75 KB. workers/process/roll_up.lua writes them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
#: The metrics that make up `total_tokens`.
TOTAL_METRICS = ("prompt_tokens", "completion_tokens")
#: Fields per round trip while one key's are looked for among those of a day.
SCAN_FIELDS = 2000
#: Seconds for which a key's totals are kept after they were last extended; they can be found again.
KEY_DAYS_TTL_SECONDS = 30 * 86_400
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

    def sum_key_tokens(self, key: str, since: float, until: float) -> int:
        """Sums the tokens of one API key on the UTC days from `since` to `until`.

        The sums of a day hold every key's. So a day that is over is searched once, and its total kept for the key.
        """
        days = SumsQuery(since, until, "day").bucket_starts()
        kept = {int(day): int(tokens) for day, tokens in self._redis.hgetall(keys.key_days(key)).items()}
        rolled_up_until = self._read_rolled_up_until()
        totals = {day: self._sum_day(day, key) for day in self._stored_buckets("day", days) if day not in kept}
        over = {day: tokens for day, tokens in totals.items() if day + STEP_SECONDS["day"] <= rolled_up_until}
        if over:
            with self._redis.pipeline() as pipe:
                pipe.hset(keys.key_days(key), mapping=over)
                pipe.expire(keys.key_days(key), KEY_DAYS_TTL_SECONDS)
                pipe.execute()
        return sum(tokens for day, tokens in (kept | totals).items() if day in days)

    def _read_rolled_up_until(self) -> float:
        """Time of the last log entry in the sums, in seconds since the epoch: all before it is counted."""
        return int((self._redis.get(keys.USAGE_ROLLED_UP) or b"0").partition(b"-")[0]) / 1000

    def _sum_day(self, day: int, key: str) -> int:
        pattern = SEPARATOR.join(("k", "*_tokens", key, "*"))
        # A dictionary, because HSCAN may return a field twice.
        found = dict(self._redis.hscan_iter(keys.usage_day(day), match=pattern, count=SCAN_FIELDS))
        amounts = [(stored.decode().split(SEPARATOR), int(amount)) for stored, amount in found.items()]
        return sum(amount for names, amount in amounts if names[1] in TOTAL_METRICS and names[2] == key)

    def _read_amounts(self, query: SumsQuery) -> Iterator[tuple[int, dict[str, str], str, int]]:
        for at in self._stored_buckets(query.step, query.bucket_starts()):
            for stored, amount in self._redis.hgetall(bucket_key(query.step, at)).items():
                kind, metric, *values = stored.decode().split(SEPARATOR)
                if kind == query.field_kind:
                    yield at, dict(zip(FIELD_KINDS[kind], values, strict=False)), metric, int(amount)

    def _stored_buckets(self, step: str, starts: Sequence[int]) -> Iterator[int]:
        """Those hours or days that have sums. A year has thousands of hours, so most are ruled out in bulk."""
        for first in range(0, len(starts), EXISTS_BATCH):
            batch = starts[first : first + EXISTS_BATCH]
            pipeline = self._redis.pipeline(transaction=False)
            for at in batch:
                pipeline.exists(bucket_key(step, at))
            yield from (at for at, exists in zip(batch, pipeline.execute(), strict=True) if exists)


def bucket_key(step: str, at: int) -> str:
    return keys.usage_hour(at) if step == "hour" else keys.usage_day(at)
