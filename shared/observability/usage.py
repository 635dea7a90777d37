"""What was used, added up by hours and days (UTC): requests and tokens by key, pool and model, and by credential.

Memory: a sum has at most MOST_FIELDS fields of about 100 bytes; an hour of 100 credentials, 10 keys and 5 models
has 750 of them, 75 KB.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from shared import keys

#: Fields of the sums of one hour or day.
MAX_FIELDS = 20_000
#: Days that the sums of days are kept.
DAY_SUMS_TTL_DAYS = 400
SEPARATOR = "\x1f"
METRICS = ("requests", "failed", "prompt_tokens", "completion_tokens", "estimated_tokens")
#: Kind of a field -> what it is of.
KINDS = {"k": ("key", "pool", "model"), "c": ("pool", "credential")}
STEPS = {"hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class SumsQuery:
    """What is asked. Times are seconds since the epoch; the hours or days that they lie in count whole."""

    since: float
    until: float
    step: str = "hour"
    #: What the rows are of, out of `time`, `key`, `pool`, `model`, or `time`, `pool`, `credential`.
    group_by: tuple[str, ...] = ()
    #: Name -> the only value that counts.
    filters: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Which fields tell."""
        return "c" if "credential" in (*self.group_by, *self.filters) else "k"

    def times(self) -> range:
        """When each hour or day begins; those that are forgotten are left out."""
        seconds = STEPS[self.step]
        first = max(self.since, self.until - DAY_SUMS_TTL_DAYS * STEPS["day"])
        return range(int(first // seconds) * seconds, int(self.until) + 1, seconds)


class UsageSums:
    """Reads the sums."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def query(self, asked: SumsQuery) -> list[dict[str, Any]]:
        """A row for each group, in their order: its names, and the metrics."""
        groups: defaultdict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(METRICS, 0))
        for at, names, metric, amount in self._amounts(asked):
            known = {**names, "time": at}
            if all(names.get(name) == value for name, value in asked.filters.items()):
                groups[tuple(known[name] for name in asked.group_by)][metric] += amount
        ordered = sorted(groups.items())
        return [
            {
                **dict(zip(asked.group_by, group, strict=True)),
                **sums,
                "total_tokens": sums["prompt_tokens"] + sums["completion_tokens"],
            }
            for group, sums in ordered
        ]

    def _amounts(self, asked: SumsQuery) -> Iterator[tuple[int, dict[str, str], str, int]]:
        for at in asked.times():
            name = keys.usage_hour(at) if asked.step == "hour" else keys.usage_day(at)
            for stored, amount in self._redis.hgetall(name).items():
                kind, metric, *values = stored.decode().split(SEPARATOR)
                if kind == asked.kind:
                    yield at, dict(zip(KINDS[kind], values, strict=False)), metric, int(amount)
