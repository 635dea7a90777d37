"""Counts a credential's attempts in slots of five minutes, and sums the last hour of them up. No I/O.

A slot holds how many attempts were served, how many failed, and a histogram of the first bytes' times with four buckets
to the octave, so that a median read from it is right to a tenth.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SLOT_SECONDS = 300
#: Slots that make up the last hour, the one that is being filled included.
SLOT_COUNT = 12
BUCKETS_PER_OCTAVE = 4
#: Milliseconds above which a first byte is counted in the last bucket.
MAX_FIRST_BYTE_MS = 3_600_000.0


@dataclass
class SlotCounts:
    """The attempts of one slot."""

    served: int = 0
    failed: int = 0
    #: Bucket -> first bytes in it.
    first_bytes: Counter[int] = field(default_factory=Counter)

    def encode(self, start: int) -> list[int]:
        """As record_activity.lua takes it, for the slot that starts then."""
        return [start, self.served, self.failed, *(part for pair in self.first_bytes.items() for part in pair)]

    @classmethod
    def decode(cls, stored: str) -> "SlotCounts":
        """Any other form, that of a later version maybe, is a slot without attempts."""
        try:
            values = json.loads(stored)
            first_bytes = {int(bucket): int(count) for bucket, count in values["first_bytes"].items()}
            return cls(int(values["served"]), int(values["failed"]), Counter(first_bytes))
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


@dataclass(frozen=True)
class RecentAttempts:
    """The attempts of about the last hour. Those that were a request's fault count neither way."""

    served: int = 0
    failed: int = 0
    #: Median seconds from the start of an attempt to its first byte; None without one.
    first_byte_seconds: float | None = None

    @property
    def success_rate(self) -> float | None:
        """Share of the attempts that were served; None without an attempt, which is not the same as 0."""
        total = self.served + self.failed
        return self.served / total if total else None


NO_ATTEMPTS = RecentAttempts()


def slot_start(at: float) -> int:
    """Start of the slot that a time is in, both in seconds since the epoch."""
    return int(at // SLOT_SECONDS) * SLOT_SECONDS


def oldest_slot(now: float) -> int:
    """Start of the oldest slot that counts."""
    return slot_start(now) - (SLOT_COUNT - 1) * SLOT_SECONDS


def find_bucket(seconds: float) -> int:
    milliseconds = min(MAX_FIRST_BYTE_MS, max(1.0, 1000 * seconds))
    return int(BUCKETS_PER_OCTAVE * math.log2(milliseconds))


def sum_up(slots: Iterable[SlotCounts]) -> RecentAttempts:
    served = failed = 0
    first_bytes: dict[int, int] = {}
    for slot in slots:
        served, failed = served + slot.served, failed + slot.failed
        for bucket, count in slot.first_bytes.items():
            first_bytes[bucket] = first_bytes.get(bucket, 0) + count
    return RecentAttempts(served, failed, find_median(first_bytes))


def find_median(first_bytes: Mapping[int, int]) -> float | None:
    """The median in seconds, interpolated within its bucket; None when there is none."""
    wanted = sum(first_bytes.values()) / 2
    for bucket, count in sorted(first_bytes.items()):
        if wanted <= count:
            place = bucket + wanted / count
            return round(2 ** (place / BUCKETS_PER_OCTAVE) / 1000, 4)
        wanted -= count
    return None
