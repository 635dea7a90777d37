"""A credential's access token: kept in memory, refreshed early, one refresh at a time (I4)."""

import logging
import random
import time

import gevent
import requests
from gevent.lock import BoundedSemaphore

from shared.errors import InvalidGrant, LeaseLost, TokenError, WrongSecretKey
from shared.observability.counters import Counters
from shared.redis_connection.retry import retry_forever
from shared.settings.schema import PoolSettings
from workers.credentials.leases import Lease
from workers.credentials.token_endpoint import TokenGrant, refresh
from workers.credentials.token_store import TokenStore

log = logging.getLogger("farm.tokens")
#: A token is renewed when this share of its life is left, but not more than EARLIEST seconds before its end.
RENEW_AT_REMAINING_SHARE = 0.15
MAX_RENEW_AHEAD_SECONDS = 60.0
#: That time is spread, so that tokens which came together are not renewed together.
JITTER = (0.8, 1.2)
#: Seconds after which an early renewal that failed is tried again, while the token is still good.
RETRY_SECONDS = 5.0


class AccessToken:
    """The access token of one leased credential."""

    def __init__(
        self,
        lease: Lease,
        pool: PoolSettings,
        store: TokenStore,
        session: requests.Session,
        counters: Counters,
        refresh_limit: BoundedSemaphore,
    ) -> None:
        #: How many of a process may ask the token endpoint at once.
        self._refresh_limit = refresh_limit
        self._lease = lease
        self._pool = pool
        self._store = store
        self._session = session
        self._counters = counters
        self._token = ""
        #: When it is to be renewed, seconds since the epoch.
        self.renew_at = 0.0
        self._expires_at = 0.0
        self._refreshing: gevent.Greenlet | None = None

    def is_fresh(self) -> bool:
        """Whether it is there and need not be renewed yet."""
        return bool(self._token) and time.time() < self.renew_at

    def is_valid(self) -> bool:
        """Whether it is there and has not expired."""
        return bool(self._token) and time.time() < self._expires_at

    def is_refreshing(self) -> bool:
        """Whether a refresh is on its way."""
        return self._refreshing is not None and not self._refreshing.ready()

    def get(self, stale: str = "") -> str:
        """A valid access token, other than the one called stale. Raises TokenError or LeaseLost.

        The refresh runs apart, so that nobody who waits for it can end it by leaving.
        """
        if self._token != stale and self.is_fresh():
            return self._token
        if not self.is_refreshing():
            self._refreshing = gevent.spawn(self._refresh_or_error, stale)
        assert self._refreshing is not None
        failure = self._refreshing.get()
        is_transient = isinstance(failure, TokenError) and not isinstance(failure, InvalidGrant)
        if is_transient and self._token != stale and self.is_valid():
            self.renew_at = min(self._expires_at, time.time() + RETRY_SECONDS * random.uniform(*JITTER))
        elif failure is not None:
            raise failure
        return self._token

    def force_refresh(self) -> None:
        """Asks the endpoint now, whatever token there is. Raises as `get` does."""
        stored = self._store.load(self._lease.credential_id)[1]
        self._token = self._token or stored
        self.get(stale=self._token)

    def load_refresh_token(self) -> str:
        """The refresh token as stored. Raises TokenError when it is gone."""
        return self._store.load(self._lease.credential_id)[0]

    def wait_for_refresh(self) -> None:
        """Waits for a refresh that is on its way, so that the lease is not given away under it."""
        if self._refreshing is not None:
            self._refreshing.join()

    def _refresh_or_error(self, stale: str) -> BaseException | None:
        """One refresh; returns what went wrong instead of raising, because a greenlet would print it."""
        try:
            self._refresh(stale)
        except Exception as error:
            return error
        return None

    def _refresh(self, stale: str) -> None:
        """1. Another process may have left a good token. 2. Ask the endpoint. 3. Store. 4. Only then use it."""
        refresh_token, access_token, expires_at = self._store.load(self._lease.credential_id)
        lifetime = expires_at - time.time()
        if access_token and access_token != stale and lifetime > MAX_RENEW_AHEAD_SECONDS:
            self._use(access_token, lifetime)
            return
        grant, stored = self._exchange(refresh_token)
        retry_forever(lambda: self._store.store(self._lease, stored, grant), "a rotated token waits to be stored")
        self._use(grant.access_token, grant.expires_in)

    def _exchange(self, refresh_token: str) -> tuple[TokenGrant, str]:
        """Asks the endpoint; returns the grant and the refresh token that the store has.

        A refused token is tried once more if the store has another one by now, else if there is one that it replaced:
        perhaps the new one never became good.
        """
        try:
            return self._call_endpoint(refresh_token), refresh_token
        except InvalidGrant:
            stored = self._store.load(self._lease.credential_id)[0]
            other = stored if stored != refresh_token else self._store.load_previous(self._lease.credential_id)
            if not other:
                raise
            return self._call_endpoint(other), stored

    def _call_endpoint(self, refresh_token: str) -> TokenGrant:
        try:
            with self._refresh_limit:
                if not self._lease.is_held():
                    raise LeaseLost("the lease ran out before the refresh")
                grant = refresh(self._session, self._pool, refresh_token)
        except TokenError as error:
            self._counters.increment("token_refreshes", outcome_label(error))
            log.warning("no access token: %s", error, extra=self._log_fields("token_refused"))
            raise
        self._counters.increment("token_refreshes", "ok")
        log.debug("access token refreshed", extra=self._log_fields("token_refreshed"))
        return grant

    def _use(self, token: str, lifetime: float) -> None:
        self._token = token
        self._expires_at = time.time() + lifetime
        self.renew_at = self._expires_at - min(
            MAX_RENEW_AHEAD_SECONDS, RENEW_AT_REMAINING_SHARE * lifetime
        ) * random.uniform(*JITTER)

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}


def outcome_label(error: Exception) -> str:
    """The outcome label of a refresh that failed."""
    if isinstance(error, InvalidGrant):
        return "invalid_grant"
    return "refused" if type(error) is TokenError else "unavailable"


#: What can end a wait for an access token, other than an interruption.
TOKEN_FAILURES = (TokenError, LeaseLost, WrongSecretKey)
