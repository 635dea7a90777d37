"""A credential's access token: kept in memory and sealed in Redis, refreshed early, one refresh at a time (I4)."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import gevent
import requests
from redis import Redis

from shared import keys
from shared.counters import Counters
from shared.errors import InvalidGrant, LeaseLost, TokenError, WrongSecretKey
from shared.opener import Opener
from shared.persistence import surely
from shared.redis_client import script
from shared.settings import PoolSettings
from shared.vault import fingerprint
from workers.leases import Lease
from workers.oauth import Grant, refresh

LUA = Path(__file__).parent / "lua"
log = logging.getLogger("farm.tokens")
#: A token is renewed when this share of its life is left, but not more than EARLIEST seconds before its end.
EARLY_SHARE = 0.15
EARLIEST = 60.0


class TokenStore:
    """Reads and writes the tokens of credentials; only workers have one."""

    def __init__(self, redis: Redis, opener: Opener) -> None:
        self._redis = redis
        self._opener = opener
        self._store_grant = script(redis, LUA / "store_grant.lua")

    def load(self, credential_id: str) -> tuple[str, str, float]:
        """The refresh token, the access token ('' for none) and its expiry. Raises TokenError when there is none."""
        sealed, access, expires = self._redis.hmget(
            keys.credential(credential_id), ("sealed", "access", "access_expires")
        )
        if not sealed:
            raise TokenError("the credential is gone")
        opened = self._opener.open(access, credential_id) if access else ""
        return self._opener.open(sealed, credential_id), opened, float(expires or 0)

    def store(self, lease: Lease, exchanged: str, grant: Grant) -> None:
        """Stores a grant for the token it was exchanged for. Raises LeaseLost when the credential is another's now."""
        seal = self._opener.sealer.seal
        renewed = grant.refresh_token or ""
        stored = self._store_grant(
            keys=[keys.credential(lease.credential_id), lease.key, keys.fingerprints(lease.pool)],
            args=[
                lease.value,
                fingerprint(exchanged),
                seal(grant.access_token, lease.credential_id),
                time.time() + grant.expires_in,
                time.time(),
                fingerprint(renewed) if renewed else "",
                seal(renewed, lease.credential_id) if renewed else "",
                lease.credential_id,
            ],
        )
        if cast("int", stored) != 1:
            raise LeaseLost("the lease was lost while the token was refreshed")


class AccessToken:
    """The access token of one leased credential."""

    def __init__(
        self,
        lease: Lease,
        pool: PoolSettings,
        store: TokenStore,
        session: Callable[[], requests.Session],
        counters: Counters,
    ) -> None:
        self._lease = lease
        self._pool = pool
        self._store = store
        self._session = session
        self._counters = counters
        self._token = ""
        self._renew_at = 0.0
        self._refreshing: gevent.Greenlet | None = None

    def get(self, stale: str = "") -> str:
        """A valid access token, other than the one called stale. Raises TokenError or LeaseLost.

        The refresh runs apart, so that nobody who waits for it can end it by leaving.
        """
        if self._token and self._token != stale and time.time() < self._renew_at:
            return self._token
        if self._refreshing is None or self._refreshing.ready():
            self._refreshing = gevent.spawn(self._attempt, stale)
        failure = self._refreshing.get()
        if failure is not None:
            raise failure
        return self._token

    def settle(self) -> None:
        """Waits for a refresh that is on its way, so that the lease is not given away under it."""
        if self._refreshing is not None:
            self._refreshing.join()

    def _attempt(self, stale: str) -> BaseException | None:
        """One refresh; returns what went wrong instead of raising, because a greenlet would print it."""
        try:
            self._renew(stale)
        except Exception as error:
            return error
        return None

    def _renew(self, stale: str) -> None:
        """1. Another process may have left a good token. 2. Ask the endpoint. 3. Store. 4. Only then use it."""
        refresh_token, access, expires = self._store.load(self._lease.credential_id)
        left = expires - time.time()
        if access and access != stale and left > EARLIEST:
            self._use(access, left)
            return
        grant, refresh_token = self._exchange(refresh_token)
        surely(lambda: self._store.store(self._lease, refresh_token, grant), "a rotated token waits to be stored")
        self._use(grant.access_token, grant.expires_in)

    def _exchange(self, refresh_token: str) -> tuple[Grant, str]:
        """Asks the endpoint; a refused token is tried once more if the store has another one by now."""
        try:
            return self._ask(refresh_token), refresh_token
        except InvalidGrant:
            stored = self._store.load(self._lease.credential_id)[0]
            if stored == refresh_token:
                raise
            return self._ask(stored), stored

    def _ask(self, refresh_token: str) -> Grant:
        if not self._lease.holds():
            raise LeaseLost("the lease ran out before the refresh")
        try:
            grant = refresh(self._session(), self._pool, refresh_token)
        except TokenError as error:
            self._counters.add("token_refreshes", outcome_of(error))
            log.warning("no access token: %s", error, extra=self._fields("token_refused"))
            raise
        self._counters.add("token_refreshes", "ok")
        log.debug("access token refreshed", extra=self._fields("token_refreshed"))
        return grant

    def _use(self, token: str, lifetime: float) -> None:
        self._token = token
        self._renew_at = time.time() + lifetime - min(EARLIEST, EARLY_SHARE * lifetime)

    def _fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}


def outcome_of(error: Exception) -> str:
    """The outcome label of a refresh that failed."""
    if isinstance(error, InvalidGrant):
        return "invalid_grant"
    return "refused" if type(error) is TokenError else "unavailable"


#: What can end a wait for an access token, other than an interruption.
TOKEN_FAILURES = (TokenError, LeaseLost, WrongSecretKey)
