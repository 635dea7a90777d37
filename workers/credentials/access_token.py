"""Caches a credential's access token and refreshes it early, as a single flight (I4)."""

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
#: A token is renewed when this share of its lifetime remains, at most so many seconds before it expires.
RENEW_AT_REMAINING_SHARE = 0.15
MAX_RENEW_AHEAD_SECONDS = 60.0
#: Factors that spread renewals, so that tokens issued together are not renewed together.
JITTER = (0.8, 1.2)
#: Seconds after which a failed early renewal is retried while the token is still valid.
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
        #: Limits concurrent calls of token endpoints in this process.
        self._refresh_limit = refresh_limit
        self._lease = lease
        self._pool = pool
        self._store = store
        self._session = session
        self._counters = counters
        self._token = ""
        #: When the token is due for renewal, seconds since the epoch.
        self.renew_at = 0.0
        self._expires_at = 0.0
        self._refresh_greenlet: gevent.Greenlet | None = None

    def is_fresh(self) -> bool:
        """Whether there is a token that is not due for renewal yet."""
        return bool(self._token) and time.time() < self.renew_at

    def is_valid(self) -> bool:
        """Whether there is a token that has not expired."""
        return bool(self._token) and time.time() < self._expires_at

    def is_refreshing(self) -> bool:
        return self._refresh_greenlet is not None and not self._refresh_greenlet.ready()

    def get(self, stale: str = "") -> str:
        """Returns a valid access token other than `stale`. Raises one of TOKEN_FAILURES.

        The refresh runs in a greenlet of its own, so that a cancelled attempt does not cancel it for the others.
        """
        if self._token != stale and self.is_fresh():
            return self._token
        if not self.is_refreshing():
            self._refresh_greenlet = gevent.spawn(self._try_refresh, stale)
        assert self._refresh_greenlet is not None
        failure = self._refresh_greenlet.get()
        is_transient = isinstance(failure, TokenError) and not isinstance(failure, InvalidGrant)
        if is_transient and self._token != stale and self.is_valid():
            self.renew_at = min(self._expires_at, time.time() + RETRY_SECONDS * random.uniform(*JITTER))
        elif failure is not None:
            raise failure
        return self._token

    def force_refresh(self) -> None:
        """Refreshes even a fresh token. Raises one of TOKEN_FAILURES."""
        stored = self._store.load(self._lease.credential_id)[1]
        self._token = self._token or stored
        self.get(stale=self._token)

    def load_refresh_token(self) -> str:
        """Raises TokenError when the credential is gone."""
        return self._store.load(self._lease.credential_id)[0]

    def wait_for_refresh(self) -> None:
        """Waits for a running refresh; to be called before the lease is released."""
        if self._refresh_greenlet is not None:
            self._refresh_greenlet.join()

    def _try_refresh(self, stale: str) -> BaseException | None:
        """Returns the exception instead of raising it, because gevent prints exceptions that leave a greenlet."""
        try:
            self._refresh(stale)
        except Exception as error:
            return error
        return None

    def _refresh(self, stale: str) -> None:
        """1. Uses a fresh token that another process has stored. 2. Else refreshes. 3. Stores. 4. Only then uses it."""
        refresh_token, access_token, expires_at = self._store.load(self._lease.credential_id)
        lifetime = expires_at - time.time()
        if access_token and access_token != stale and lifetime > MAX_RENEW_AHEAD_SECONDS:
            self._set_token(access_token, lifetime)
            return
        grant, stored = self._exchange(refresh_token)
        retry_forever(lambda: self._store.store(self._lease, stored, grant), "a rotated token waits to be stored")
        self._set_token(grant.access_token, grant.expires_in)

    def _exchange(self, refresh_token: str) -> tuple[TokenGrant, str]:
        """Returns the grant and the refresh token that is stored.

        If the token is refused, retries once: with the stored token if that is another one by now, else with the token
        that it replaced, because a rotated token may never have become valid.
        """
        try:
            return self._call_endpoint(refresh_token), refresh_token
        except InvalidGrant:
            stored = self._store.load(self._lease.credential_id)[0]
            other_token = stored if stored != refresh_token else self._store.load_previous(self._lease.credential_id)
            if not other_token:
                raise
            return self._call_endpoint(other_token), stored

    def _call_endpoint(self, refresh_token: str) -> TokenGrant:
        try:
            with self._refresh_limit:
                if not self._lease.is_held():
                    raise LeaseLost("the lease expired before the refresh")
                grant = refresh(self._session, self._pool, refresh_token)
        except TokenError as error:
            self._counters.increment("token_refreshes", label_refresh_outcome(error))
            log.warning("no access token: %s", error, extra=self._log_fields("token_refused"))
            raise
        self._counters.increment("token_refreshes", "ok")
        log.debug("access token refreshed", extra=self._log_fields("token_refreshed"))
        return grant

    def _set_token(self, token: str, lifetime: float) -> None:
        self._token = token
        self._expires_at = time.time() + lifetime
        self.renew_at = self._expires_at - min(
            MAX_RENEW_AHEAD_SECONDS, RENEW_AT_REMAINING_SHARE * lifetime
        ) * random.uniform(*JITTER)

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}


def label_refresh_outcome(error: Exception) -> str:
    """The outcome label of a failed refresh."""
    if isinstance(error, InvalidGrant):
        return "invalid_grant"
    return "refused" if type(error) is TokenError else "unavailable"


#: Why no access token can be obtained, apart from a cancelled attempt.
TOKEN_FAILURES = (TokenError, LeaseLost, WrongSecretKey)
