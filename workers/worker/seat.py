"""What one worker works with: a slot of a leased account, and its queue's books; plain data."""

from dataclasses import dataclass

from shared.settings.schema import PoolSettings
from workers.credentials.leases import Lease
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.worker.leased_credential import LeasedCredential
from workers.worker.services import WorkerServices


@dataclass(frozen=True)
class Seat:
    """One slot of an account."""

    account: LeasedCredential
    bookkeeping: Bookkeeping
    #: Which of the account's slots, from 1.
    slot: int = 1

    @property
    def lease(self) -> Lease:
        """The credential's lease."""
        return self.account.lease

    @property
    def pool(self) -> PoolSettings:
        """The credential's pool."""
        return self.account.pool

    @property
    def around(self) -> WorkerServices:
        """What all workers of the process share."""
        return self.account.around
