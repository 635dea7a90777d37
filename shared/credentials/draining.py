"""Drains credentials: disabled ones whose last request still runs."""

import time
from collections.abc import Collection, Iterator

from redis import Redis

from shared import keys

#: Seconds between two looks.
INTERVAL_SECONDS = 0.5


def wait_until_idle(redis: Redis, credential_ids: Collection[str], timeout: float) -> Iterator[list[str]]:
    """Yields, twice a second, the disabled credentials that have become idle, until all are or `timeout` seconds pass.

    A worker gives the lease back when its request has ended, and takes no other one: that is what is waited for.
    """
    waiting, deadline = list(credential_ids), time.monotonic() + timeout
    while waiting:
        leases = redis.mget([keys.lease(credential_id) for credential_id in waiting])
        idle = [credential_id for credential_id, lease in zip(waiting, leases, strict=True) if not lease]
        waiting = [credential_id for credential_id, lease in zip(waiting, leases, strict=True) if lease]
        yield idle
        if waiting and time.monotonic() > deadline:
            return
        time.sleep(INTERVAL_SECONDS if waiting else 0)
