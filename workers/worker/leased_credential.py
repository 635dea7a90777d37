"""A leased credential: its access token and health, shared by the workers of its slots."""

from gevent.event import Event

from shared import keys
from shared.pacing.account_limits import AccountLimits, OwnLimits
from shared.settings.schema import PoolSettings
from workers.credentials.access_token import AccessToken
from workers.credentials.api_key import ApiKey
from workers.credentials.leases import Lease
from workers.jobs.pace import AccountPace
from workers.worker.activity_recorder import CredentialActivity
from workers.worker.credential_health import CredentialHealth
from workers.worker.services import WorkerServices


class StopSignal:
    """Stops the workers of all slots, each through an event of its own."""

    def __init__(self, slots: int) -> None:
        self.events = [Event() for _ in range(slots)]

    def set(self) -> None:
        for event in self.events:
            event.set()


class LeasedCredential:
    """A credential that this process holds the lease of."""

    def __init__(self, lease: Lease, pool: PoolSettings, services: WorkerServices, own_limits: str = "") -> None:
        """`own_limits`: the account's own, encoded."""
        self.lease = lease
        self.pool = pool
        self.services = services
        self._own_limits = own_limits
        #: None while the account has no limits.
        self.pace = self._build_pace()
        self.stop_signal = StopSignal(pool.slots)
        self.token = build_token(lease, pool, services)
        self.activity = CredentialActivity(services.activity, lease.credential_id)
        self.health = CredentialHealth(lease, pool, services, self.token, self.activity, self.stop_signal.set)
        self.health.resume_rest(has_limits=self.pace is not None)

    def apply_own_limits(self, own_limits: str) -> None:
        """Puts limits of the account's own (encoded) into force, from its next request on."""
        if own_limits != self._own_limits:
            self._own_limits = own_limits
            self.pace = self._build_pace()
            self.health.end_limit_rest(has_limits=self.pace is not None)

    def _build_pace(self) -> AccountPace | None:
        limits = OwnLimits.decode(self._own_limits).replace_in(AccountLimits.of_pool(self.pool))
        if not limits.encoded:
            return None
        return AccountPace(limits, keys.pace(self.lease.credential_id), self.services.count_request)


def build_token(lease: Lease, pool: PoolSettings, services: WorkerServices) -> AccessToken | ApiKey:
    """What the pool's kind of credential presents to the upstream."""
    breaker = services.token_breakers[pool.configured_name]
    if pool.credential_kind == "api_key":
        return ApiKey(lease, breaker, services.refreshes)
    return AccessToken(lease, breaker, services.refreshes)
