"""Reads usage: requests and tokens per hour and UTC day, by key, pool and model, and by pool and credential.

Each hour and day is a Redis hash of at most MAX_SUM_FIELDS fields of about 100 bytes. An hour with 100 credentials, 10
keys and 5 models has 750 fields, 75 KB. workers/process/roll_up.lua writes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis import Redis

from shared import clock, keys

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
#: Metric, as fields have it -> its place among METRICS.
PLACES_BY_FIELD = {metric.encode(): place for place, metric in enumerate(METRICS)}
#: Metric, or `total_tokens` -> the places of what it is the sum of.
PLACES_BY_COLUMN = {metric: [place] for place, metric in enumerate(METRICS)} | {
    "total_tokens": [METRICS.index(metric) for metric in TOTAL_METRICS]
}
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

    def list_buckets(self) -> list["Bucket"]:
        """The sums to read. Whole days, and today so far, stand for their hours, unless each hour is wanted."""
        starts = self.bucket_starts()
        if self.step == "day" or "time" in self.group_by or not starts:
            return [Bucket(self.step, at) for at in starts]
        day, end = STEP_SECONDS["day"], starts[-1] + STEP_SECONDS["hour"]
        is_until_now = end > clock.now()
        first_day, last_day = -(-starts[0] // day) * day, (-(-end // day) if is_until_now else end // day) * day
        days = range(first_day, last_day, day)
        hours = [at for at in starts if not days or not first_day <= at < last_day]
        return [*(Bucket("day", at) for at in days), *(Bucket("hour", at) for at in hours)]

    def list_fields(self) -> list[str]:
        """The fields of a sum that the filters leave, if they name them all; else none: then all are looked at."""
        names = FIELD_KINDS[self.field_kind]
        if not all(self.filters.get(name) for name in names):
            return []
        values = [self.filters[name] for name in names]
        return [SEPARATOR.join((self.field_kind, metric, *values)) for metric in METRICS]


class Bucket(NamedTuple):
    """An hour or a day that has sums."""

    step: str
    #: Its start, in seconds since the epoch.
    at: int

    @property
    def key(self) -> str:
        return keys.usage_hour(self.at) if self.step == "hour" else keys.usage_day(self.at)


class GroupSums(NamedTuple):
    """What a group has used."""

    #: The values that it is grouped by.
    names: tuple[Any, ...]
    #: In the order of METRICS.
    sums: list[int]

    def read(self, metric: str) -> int:
        """A metric, or `total_tokens`."""
        return sum([self.sums[place] for place in PLACES_BY_COLUMN[metric]])


class FieldPlaces(dict[bytes, tuple[tuple[str, ...], int] | None]):
    """Field of a sum -> the names that it is grouped by, and which metric it is; None for one that isn't asked for.

    A farm of 1,000 accounts has 100,000 fields a day, most of them the same in each hour: each is parsed once.
    """

    def __init__(self, query: SumsQuery) -> None:
        super().__init__()
        #: How the fields of this kind begin: half of an hour's fields may be of the other one.
        self.prefix = f"{query.field_kind}{SEPARATOR}".encode()
        names = FIELD_KINDS[query.field_kind]
        self._grouped = [names.index(name) for name in query.group_by if name != "time"]
        self._required = [(names.index(name), value.encode()) for name, value in query.filters.items()]

    def sum_up(self, fields: Mapping[bytes, Any]) -> dict[tuple[str, ...], list[int]]:
        """Group -> its metrics."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for stored, amount in fields.items():
            if place := self[stored]:
                group, metric = place
                sums = groups.get(group) or groups.setdefault(group, [0] * len(METRICS))
                sums[metric] += int(amount)
        return groups

    def __missing__(self, stored: bytes) -> tuple[tuple[str, ...], int] | None:
        place = self[stored] = self._find(stored) if stored.startswith(self.prefix) else None
        return place

    def _find(self, stored: bytes) -> tuple[tuple[str, ...], int] | None:
        _, metric, *values = stored.split(SEPARATOR.encode())
        place = PLACES_BY_FIELD.get(metric)
        if place is None or any(values[position] != value for position, value in self._required):
            return None
        return tuple([values[position].decode() for position in self._grouped]), place


class UsageSums:
    """Reads the sums of hours and days."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def query(self, query: SumsQuery) -> list[dict[str, Any]]:
        """Returns one row per group, sorted, with the `group_by` values and the metrics."""
        return [build_row(query.group_by, *found) for found in sorted(self.sum_up(query))]

    def sum_up(self, query: SumsQuery) -> list[GroupSums]:
        """The same, neither sorted nor as rows: grouped by time and account there are tens of thousands."""
        if "time" in query.group_by:
            return [group for groups in self.sum_up_newest_first(query) for group in groups]
        places, totals = FieldPlaces(query), dict[bytes, int]()
        for _, fields in self._read_fields(query, query.list_buckets()):
            for stored, amount in fields.items():
                if stored.startswith(places.prefix):
                    totals[stored] = totals.get(stored, 0) + int(amount)
        return [GroupSums(group, sums) for group, sums in places.sum_up(totals).items()]

    def sum_up_newest_first(self, query: SumsQuery) -> Iterator[list[GroupSums]]:
        """The groups of each hour or day that has any, for a query by time; reads as many as are taken."""
        places, position = FieldPlaces(query), query.group_by.index("time")
        for at, fields in self._read_fields(query, query.list_buckets()[::-1]):
            groups = places.sum_up(fields).items()
            yield [GroupSums((*group[:position], at, *group[position:]), sums) for group, sums in groups]

    def sum_key_tokens(self, key: str, since: float, until: float) -> int:
        """Sums the tokens of one API key on the UTC days from `since` to `until`.

        The sums of a day hold every key's. So a day that is over is searched once, and its total kept for the key.
        """
        days = SumsQuery(since, until, "day").bucket_starts()
        kept = {int(day): int(tokens) for day, tokens in self._redis.hgetall(keys.key_days(key)).items()}
        rolled_up_until = self._read_rolled_up_until()
        totals = {
            day: self._sum_day(day, key)
            for _, day in self._stored_buckets([Bucket("day", at) for at in days if at not in kept])
        }
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

    def _read_fields(self, query: SumsQuery, listed: Sequence[Bucket]) -> Iterator[tuple[int, Mapping[bytes, bytes]]]:
        """Start of each of these hours or days that has sums, and their fields."""
        wanted = query.list_fields()
        buckets = self._stored_buckets(listed)
        if not wanted:
            yield from ((bucket.at, self._redis.hgetall(bucket.key)) for bucket in buckets)
            return
        pipeline, starts = self._redis.pipeline(transaction=False), []
        for bucket in buckets:
            starts.append(bucket.at)
            pipeline.hmget(bucket.key, wanted)
        names = [name.encode() for name in wanted]
        for at, amounts in zip(starts, pipeline.execute(), strict=True):
            yield at, {name: amount for name, amount in zip(names, amounts, strict=True) if amount}

    def _stored_buckets(self, buckets: Sequence[Bucket]) -> Iterator[Bucket]:
        """Those hours or days that have sums. A year has thousands of hours, so most are ruled out in bulk."""
        for first in range(0, len(buckets), EXISTS_BATCH):
            batch = buckets[first : first + EXISTS_BATCH]
            pipeline = self._redis.pipeline(transaction=False)
            for bucket in batch:
                pipeline.exists(bucket.key)
            yield from (bucket for bucket, exists in zip(batch, pipeline.execute(), strict=True) if exists)


def build_row(group_by: Sequence[str], names: Sequence[Any], sums: Sequence[int]) -> dict[str, Any]:
    row = {**dict(zip(group_by, names, strict=True)), **dict(zip(METRICS, sums, strict=True))}
    return {**row, "total_tokens": row["prompt_tokens"] + row["completion_tokens"]}
