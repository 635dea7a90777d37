"""Leases of tasks that one process at a time may do; those of credentials are in workers/credentials/leases.py."""

from pathlib import Path
from typing import Protocol, cast

from redis import Redis

from shared.redis_connection.client import register_script

NOT_HELD, HELD, TAKEN = 0, 1, 2


class HoldLease(Protocol):
    """See hold_lease.lua."""

    def __call__(self, lease: str, holder: str, ttl_ms: int, predecessor: str = "") -> int:
        """Takes or renews a lease, or gives it back with a time of 0 ms. Raises RedisError."""


def build_lease(redis: Redis) -> HoldLease:
    script = register_script(redis, Path(__file__).with_name("hold_lease.lua"))

    def hold(lease: str, holder: str, ttl_ms: int, predecessor: str = "") -> int:
        return cast("int", script(keys=[lease], args=[holder, ttl_ms, predecessor]))

    return hold
