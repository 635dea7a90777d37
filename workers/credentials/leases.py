"""Leases of credentials to worker processes, with fencing tokens (I3)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.credentials.records import USABLE_STATES, State
from shared.credentials.token_origin import SIMULATOR_ORIGIN
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import register_script
from shared.redis_connection.primary_finder import REPLY_TIMEOUT_SECONDS, WATCH_INTERVAL_SECONDS
from workers.parallel import run_in_parallel

#: Seconds for which Redis may be silent without a lease being lost, and so without a stream being cut.
TOLERATED_SILENCE_SECONDS = 10.0
#: Seconds between two renewals; until one is given up, since Redis may have lost it; and from then until the next.
RENEW_INTERVAL_SECONDS, RENEW_TIMEOUT_SECONDS, RENEW_RETRY_SECONDS = 2.0, 1.5, 0.3
#: Seconds after which a lease expires unless it is renewed. Silence may begin right before a renewal is due and end
#: right after one was given up; two more seconds are for busy machines. A longer lease leaves the credentials of a host
#: that is gone unused for longer.
LEASE_SECONDS = 16.0
#: Seconds for which a dying Redis may still reply to other processes after its last reply to this one.
LAST_REPLY_MARGIN_SECONDS = 2.0
#: Seconds within which every process that a former primary has served has moved to the new one, after the first process
#: has: it asks the sentinels, and renews its leases there or finds that they are lost.
FAILOVER_SETTLE_SECONDS = (
    WATCH_INTERVAL_SECONDS + REPLY_TIMEOUT_SECONDS + RENEW_INTERVAL_SECONDS + RENEW_TIMEOUT_SECONDS
)
#: Seconds before its expiry from which a lease is no longer relied on.
SAFETY_MARGIN_SECONDS = 1.0


@dataclass
class Lease:
    """A lease of one credential, valid until `valid_until` by this machine's `clock.lease_time`."""

    pool: str
    credential_id: str
    #: The lease's value in Redis: `<worker process>:<fencing token>`.
    value: str
    #: End of the credential's cooldown, seconds since the epoch; 0 for none, -1 for a rest by its own limits.
    cooling_until: float = 0.0
    valid_until: float = field(default=0.0)
    lost: bool = False

    @property
    def key(self) -> str:
        return keys.lease(self.credential_id)

    def is_held(self) -> bool:
        """Whether the credential may be used now. A process that was frozen notices that the lease has expired."""
        return not self.lost and clock.lease_time() < self.valid_until


@dataclass(frozen=True)
class Candidate:
    """A credential that may be claimed."""

    pool: str
    credential_id: str
    #: The origin of its pool's token endpoint: a credential of another one is left alone. '' means any.
    token_origin: str = ""

    @property
    def keys(self) -> tuple[str, str, str]:
        return keys.credentials(self.pool), keys.lease(self.credential_id), keys.credential(self.credential_id)


class Leases:
    """Claims, renews and releases the leases of one worker process."""

    def __init__(
        self,
        redis: Redis,
        process_id: str,
        find_confirmation: Callable[[], float] = clock.lease_time,
        pipeline: AutoPipeline | None = None,
    ) -> None:
        """`find_confirmation` returns when it was last certain that `redis` is the primary, by `clock.lease_time`.

        A lease that was claimed or renewed later ends as if that had happened then: a primary that has been cut off
        from the sentinels grants leases that its successor does not know.

        Leases are released over `pipeline`: a process that ends releases hundreds at once, while those of its running
        requests must still be renewed over the few connections of `redis`.
        """
        self._redis = redis
        self._process_id = process_id
        self._find_confirmation = find_confirmation
        self._claim_script = register_script(redis, Path(__file__).with_name("claim.lua"))
        self._renew_script = register_script(redis, Path(__file__).with_name("renew.lua"))
        self._release_script = (pipeline or AutoPipeline(redis)).register_script(
            Path(__file__).with_name("release.lua")
        )
        self._claims_allowed_at = float("-inf")

    def suspend_claims_after(self, last_reply_at: float, moved_at: float) -> None:
        """Suspends claims after Redis was replaced, until all leases of its predecessor have expired or are known.

        `last_reply_at` is when the predecessor last replied, `moved_at` when its successor first did (-inf if no other
        process can have gone on with the predecessor), by the monotonic clock. A Redis that crashes may lose the writes
        of its last two seconds, and a replica those that had not reached it, so leases may be missing that are still
        held; their workers notice at the next renewal. A primary that this process could not reach may have renewed
        those of others until the failover.
        """
        expired_at = last_reply_at + LEASE_SECONDS + LAST_REPLY_MARGIN_SECONDS
        self._claims_allowed_at = max(expired_at, moved_at + FAILOVER_SETTLE_SECONDS)

    def claim(
        self,
        pool: str,
        credential_ids: Sequence[str],
        max_count: int,
        states: Sequence[State] = USABLE_STATES,
        token_origin: str = "",
    ) -> list[Lease]:
        """Claims as `claim_any` does, from one pool, whose token endpoint has this origin."""
        return self.claim_any([Candidate(pool, id_, token_origin) for id_ in credential_ids], max_count, states)

    def claim_any(
        self, candidates: Sequence[Candidate], max_count: int, states: Sequence[State] = USABLE_STATES
    ) -> list[Lease]:
        """Claims the first of these credentials, at most `max_count`, that have no lease and are in one of the states.

        However many pools they are of, that is one round trip.
        """
        if not candidates or max_count < 1 or time.monotonic() < self._claims_allowed_at:
            return []
        sent_at = clock.lease_time()
        reply = self._claim_script(
            keys=[key for candidate in candidates for key in candidate.keys],
            args=[
                *(self._process_id, int(LEASE_SECONDS * 1000), max_count, f",{','.join(states)},", SIMULATOR_ORIGIN),
                *(part for candidate in candidates for part in (candidate.credential_id, candidate.token_origin)),
            ],
        )
        claimed, valid_until = cast("list[Any]", reply), self._find_end(sent_at)
        leases = []
        for position, fence, cooling in zip(claimed[::3], claimed[1::3], claimed[2::3], strict=True):
            chosen, value = candidates[position - 1], f"{self._process_id}:{fence}"
            leases.append(Lease(chosen.pool, chosen.credential_id, value, float(cooling or 0), valid_until))
        return leases

    def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Renews the leases; returns those that were lost, marked as such."""
        if not leases:
            return []
        sent_at = clock.lease_time()
        args = [int(LEASE_SECONDS * 1000), *(lease.value for lease in leases)]
        reply = cast("list[int]", self._renew_script(keys=[lease.key for lease in leases], args=args))
        lost_positions = set(reply)
        for position, lease in enumerate(leases, 1):
            lease.lost = lease.lost or position in lost_positions
            lease.valid_until = self._find_end(sent_at)
        return [leases[position - 1] for position in sorted(lost_positions)]

    def _find_end(self, sent_at: float) -> float:
        """Until when a lease may be relied on that was claimed or renewed then."""
        return min(sent_at, self._find_confirmation()) + LEASE_SECONDS - SAFETY_MARGIN_SECONDS

    def release_held_by(self, process_id: str, credential_ids: Sequence[str]) -> list[str]:
        """Releases the leases of a process that is known to be dead; returns the credentials that it had."""
        if not credential_ids:
            return []
        values = self._redis.mget([keys.lease(credential_id) for credential_id in credential_ids])
        released: list[str] = []

        def release(credential_id: str, value: bytes) -> None:
            if self._release_script(keys=[keys.lease(credential_id)], args=[value]):
                released.append(credential_id)

        run_in_parallel(
            partial(release, credential_id, value)
            for credential_id, value in zip(credential_ids, values, strict=True)
            if value and value.decode().rpartition(":")[0] == process_id
        )
        return released

    def release(self, lease: Lease) -> None:
        lease.lost = True
        self._release_script(keys=[lease.key], args=[lease.value])
