"""Leases: which worker process owns which credential, with a fencing number (I3); it runs no worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import keys
from shared.credentials.records import USABLE_STATES, State
from shared.redis_connection.client import register_script

#: Seconds a lease lives without being renewed.
LEASE_SECONDS = 10.0
#: Seconds between two renewals.
RENEW_INTERVAL_SECONDS = 3.0
#: Seconds within which a Redis answers one process and not another, and then no one: between two reports, and a bit.
MAX_LOST_WRITES_SECONDS = 2.0
#: Seconds before its end from which a lease is not relied on.
SAFETY_MARGIN_SECONDS = 1.0


@dataclass
class Lease:
    """One credential, owned until `valid_until` by this process's clock."""

    pool: str
    credential_id: str
    #: What the lease holds in Redis: `<worker process>:<fencing number>`.
    value: str
    #: Until when it cools, seconds since the epoch; 0 when it does not.
    cooling_until: float = 0.0
    valid_until: float = field(default=0.0)
    lost: bool = False

    @property
    def key(self) -> str:
        """Its key in Redis."""
        return keys.lease(self.credential_id)

    def is_held(self) -> bool:
        """Whether the credential may be used now; a process that was frozen for too long sees that it may not."""
        return not self.lost and time.monotonic() < self.valid_until


class Leases:
    """Claims, renews and gives back the leases of one worker process."""

    def __init__(self, redis: Redis, process_id: str) -> None:
        self._redis = redis
        self._process_id = process_id
        self._claim = register_script(redis, Path(__file__).with_name("claim.lua"))
        self._renew = register_script(redis, Path(__file__).with_name("renew.lua"))
        self._release = register_script(redis, Path(__file__).with_name("release.lua"))
        self._claims_allowed_at = float("-inf")

    def suspend_claims_after(self, at: float) -> None:
        """Claims nothing until all leases have run out that the Redis before this one gave: it may have lost some.

        `at` is when it last answered, by the monotonic clock. A Redis that is killed can lose what it has acknowledged
        in the last two seconds, and a replica what had not reached it; renewals bring the leases back that are held.
        """
        self._claims_allowed_at = at + LEASE_SECONDS + MAX_LOST_WRITES_SECONDS

    def claim(
        self, pool: str, credential_ids: Sequence[str], max_count: int, states: Sequence[State] = USABLE_STATES
    ) -> list[Lease]:
        """Leases on at most `most` of these credentials that nobody holds and that are in one of the states."""
        if not credential_ids or max_count < 1 or time.monotonic() < self._claims_allowed_at:
            return []
        sent_at = time.monotonic()
        record_keys = [name for one in credential_ids for name in (keys.lease(one), keys.credential(one))]
        reply = self._claim(
            keys=[keys.credentials(pool), *record_keys],
            args=[self._process_id, int(LEASE_SECONDS * 1000), max_count, f",{','.join(states)},", *credential_ids],
        )
        claimed, valid_until = cast("list[Any]", reply), sent_at + LEASE_SECONDS - SAFETY_MARGIN_SECONDS
        return [
            Lease(pool, credential_ids[position - 1], f"{self._process_id}:{fence}", float(cooling or 0), valid_until)
            for position, fence, cooling in zip(claimed[::3], claimed[1::3], claimed[2::3], strict=True)
        ]

    def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Renews the leases; returns those that were lost, marked so."""
        if not leases:
            return []
        sent_at = time.monotonic()
        args = [int(LEASE_SECONDS * 1000), *(lease.value for lease in leases)]
        reply = cast("list[int]", self._renew(keys=[lease.key for lease in leases], args=args))
        lost_positions = set(reply)
        for place, lease in enumerate(leases, 1):
            lease.lost = lease.lost or place in lost_positions
            lease.valid_until = sent_at + LEASE_SECONDS - SAFETY_MARGIN_SECONDS
        return [leases[place - 1] for place in sorted(lost_positions)]

    def reclaim(self, process_id: str, credential_ids: Sequence[str]) -> int:
        """Gives back what a process held that is known to be dead; returns how many."""
        if not credential_ids:
            return 0
        values = self._redis.mget([keys.lease(one) for one in credential_ids])
        owned = [
            (keys.lease(one), value)
            for one, value in zip(credential_ids, values, strict=True)
            if value and value.decode().rpartition(":")[0] == process_id
        ]
        return sum(cast("int", self._release(keys=[key], args=[value])) for key, value in owned)

    def release(self, lease: Lease) -> None:
        """Gives a lease back."""
        lease.lost = True
        self._release(keys=[lease.key], args=[lease.value])
