"""Leases of alerts: one worker process watches, one process sends to a receiver."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from redis import Redis

from shared.redis_connection.client import register_script

#: Milliseconds after which another process may go on for one that was killed, unless the lease was renewed; the second
#: is longer than a delivery may take.
WATCH_TTL_MS, DELIVERY_TTL_MS = 10_000, 75_000
NOT_HELD, HELD, TAKEN = 0, 1, 2


def build_lease(redis: Redis) -> Callable[[str, str, int], int]:
    """Returns a function that takes or renews a lease, or gives it back with a time of 0 ms; see hold_lease.lua."""
    script = register_script(redis, Path(__file__).with_name("hold_lease.lua"))

    def hold(lease: str, holder: str, ttl_ms: int) -> int:
        return cast("int", script(keys=[lease], args=[holder, ttl_ms]))

    return hold
