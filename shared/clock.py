"""The farm's two clocks: one that all hosts share, and one that goes on while the machine is suspended.

Deadlines, cooldowns and heartbeats are written on one host and compared on another, whose clock may be a minute off.
So times since the epoch are Redis's: each process compares its clock with Redis's TIME once a second. Times that never
leave a process are measured by `time.monotonic`, except those of leases: by that clock a machine that was suspended for
an hour would still hold them.
"""

import time
from datetime import UTC, datetime

from redis import Redis

#: Seconds by which the clocks may differ without any harm; they are not corrected for less.
TOLERANCE_SECONDS = 0.5
#: Longest round trip in seconds from which the difference is computed: the time is read somewhere in between.
MAX_ROUND_TRIP_SECONDS = 1.0
#: Counts time in suspend: CLOCK_BOOTTIME on Linux; CLOCK_MONOTONIC does so on macOS and is the best there is elsewhere.
LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Seconds to add to this host's clock to get Redis's.
_offset = 0.0


def now() -> float:
    """Seconds since the epoch by Redis's clock, as far as this process has compared them."""
    return time.time() + _offset


def utc_now() -> datetime:
    """The same for RQ, which keeps its times as datetimes."""
    return datetime.fromtimestamp(now(), UTC)


def lease_time() -> float:
    """Seconds by a monotonic clock that goes on while the machine is suspended."""
    return time.clock_gettime(LEASE_CLOCK)


def compare(redis_time: tuple[int, int], asked_at: float) -> None:
    """Corrects `now` by Redis's reply to TIME, that was asked for at `asked_at` by this host's `time.time`."""
    global _offset  # noqa: PLW0603 (one clock for a process)
    received_at = time.time()
    if not 0 <= received_at - asked_at <= MAX_ROUND_TRIP_SECONDS:
        return
    seconds, microseconds = redis_time
    difference = seconds + microseconds / 1e6 - (asked_at + received_at) / 2
    if abs(difference - _offset) > TOLERANCE_SECONDS:
        _offset = difference if abs(difference) > TOLERANCE_SECONDS else 0.0


def compare_with(redis: Redis) -> None:
    """Asks Redis for its time. Raises RedisError."""
    asked_at = time.time()
    compare(redis.time(), asked_at)
