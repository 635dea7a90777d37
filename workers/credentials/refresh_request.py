"""What a worker asks of the token refresher: a new access token for a credential that it holds."""

from dataclasses import dataclass
from typing import Protocol

from workers.credentials.leases import Lease


@dataclass(frozen=True)
class RefreshRequest:
    """It holds no token: the refresher loads and stores them itself."""

    pool: str
    credential_id: str
    #: The lease under which it is asked for, and until when that may be relied on, by `clock.lease_time`.
    lease_value: str
    lease_valid_until: float
    #: Whether neither the pause after a refusal nor the token endpoint's breaker holds it up.
    is_forced: bool = False
    #: Whether the credential is the breaker's probe.
    is_probe: bool = False
    #: Workers of the pool in the process that asks, over which the next tries are spread.
    worker_count: int = 0
    #: Whether all live worker processes can read sealed values with a header.
    seals_header: bool = False

    @property
    def lease(self) -> Lease:
        return Lease(self.pool, self.credential_id, self.lease_value, valid_until=self.lease_valid_until)


class Refresher(Protocol):
    """Refreshes access tokens."""

    def refresh(self, request: RefreshRequest) -> None:
        """Returns once the new tokens are durable in Redis. Raises one of TOKEN_FAILURES, RefreshPending, RedisError.

        It goes on when whoever has asked for it is gone.
        """
