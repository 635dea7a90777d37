"""One leased credential in this process: its access token and its condition, shared by the workers of its slots."""

from collections.abc import Callable

from shared.settings.schema import PoolSettings
from workers.credentials.access_token import AccessToken
from workers.credentials.leases import Lease
from workers.worker.credential_health import CredentialHealth
from workers.worker.services import WorkerServices


class LeasedCredential:
    """A credential that this process may use."""

    def __init__(self, lease: Lease, pool: PoolSettings, around: WorkerServices) -> None:
        self.lease = lease
        self.pool = pool
        self.around = around
        session = around.token_sessions[pool.family]
        self.token = AccessToken(lease, pool, around.token_store, session, around.counters, around.refresh_limit)
        self.condition = CredentialHealth(lease, pool, around, self.token, self.stop)
        self._stops: list[Callable[[], None]] = []

    def join(self, stop: Callable[[], None]) -> None:
        """A worker of the account, and how it is asked to end."""
        self._stops.append(stop)

    def stop(self) -> None:
        """Asks all its workers to end."""
        for stop in self._stops:
            stop()
