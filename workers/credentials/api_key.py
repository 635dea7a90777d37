"""An API key in the place of an access token: sent as it is, and dead when the upstream refuses it twice.

A single 401 may be the upstream's mistake. So the key pauses, and the next request that it gets is its second chance.
While the upstream refuses several keys and accepts none it is the upstream that fails, and no key dies (I4); the pool's
token breaker tells. Each key then pauses, longer each time, and the next request that it gets is a try.
"""

import logging
import random
import time

import gevent
from redis.exceptions import RedisError

from shared import clock
from shared.backoff import compute_backoff
from shared.credentials.pool_rest import API_KEY_REFUSED, API_KEYS_REFUSED
from shared.credentials.sealing import fingerprint
from shared.errors import InvalidGrant, TokenError, TokenRefused
from workers.credentials.access_token import RefreshServices
from workers.credentials.leases import Lease
from workers.credentials.refusals import Refusals
from workers.credentials.token_breaker import MAX_PROBE_BACKOFF_SECONDS, PROBE_BACKOFF_SECONDS, TokenBreaker

log = logging.getLogger("farm.tokens")
#: Seconds between two records that the upstream accepts keys of the pool.
ACCEPTED_INTERVAL_SECONDS = 1.0
#: Factors that spread the tries of keys that were refused together.
JITTER = (0.75, 1.0)


class ApiKey:
    """The API key of one leased credential; it has the methods of an AccessToken."""

    #: An API key is never due for renewal.
    renew_at = float("inf")

    def __init__(self, lease: Lease, breaker: TokenBreaker, services: RefreshServices) -> None:
        self._lease = lease
        self._breaker = breaker
        self._store = services.store
        self._services = services
        self._key = ""
        #: Whether a refusal is stored.
        self._is_suspected = False
        #: Refusals in a row while the breaker was open, and when the key is tried again (seconds since the epoch).
        self._outage_refusals = 0
        self._outage_retry_at = 0.0
        #: When it was last recorded that the upstream accepts the key, by the monotonic clock.
        self._accepted_at = 0.0

    def is_fresh(self) -> bool:
        return bool(self._key)

    def is_usable(self) -> bool:
        return bool(self._key)

    def is_valid(self) -> bool:
        return bool(self._key)

    def is_refreshing(self) -> bool:
        return False

    def get(self, stale: str = "", *, is_forced: bool = False) -> str:
        """The key; if it is `stale`, the upstream has refused it: raises TokenRefused, the second time InvalidGrant."""
        if not self._key:
            self._key = self._store.load(self._lease.credential_id)[0]
            self._is_suspected = bool(self._store.load_refusals(self._lease.credential_id).count)
        if stale and stale == self._key:
            raise self._judge_refusal()
        return self._key

    def force_refresh(self) -> None:
        """Loads the key; there is nothing to refresh. Raises TokenError when the credential is gone."""
        self.get()

    def load_refresh_token(self) -> str:
        """Raises TokenError: only refresh tokens can be revoked."""
        raise TokenError("an API key can't be revoked here")

    def wait_for_refresh(self) -> None:
        """Nothing is refreshed."""

    def record_accepted(self) -> None:
        """Records, now and then, that the upstream has accepted the key: what was refused before counts no more."""
        self._outage_refusals = 0
        if time.monotonic() - self._accepted_at >= ACCEPTED_INTERVAL_SECONDS or self._is_suspected:
            self._accepted_at = time.monotonic()
            gevent.spawn(self._store_accepted)

    def _store_accepted(self) -> None:
        try:
            if self._is_suspected:
                self._store.store_refusals(self._lease, None)
                self._is_suspected = False
            self._breaker.record_grant()
        except RedisError as error:
            log.warning("acceptance not recorded: %s", error, extra=self._log_fields("redis_lost"))

    def _judge_refusal(self) -> TokenError:
        """What a 401 means: the key is dead, gets a second chance, or the upstream is at fault."""
        credential_id, patience = self._lease.credential_id, self._services.patience
        refusals = self._store.load_refusals(credential_id)
        self._services.counters.increment("token_refreshes", API_KEY_REFUSED)
        history = self._breaker.record_failure(
            credential_id,
            API_KEY_REFUSED,
            refusals.refused_at,
            is_probe=self._breaker.probing_credential == credential_id,
        )
        if history.is_open:
            return self._build_outage(was_refused=bool(refusals.count))
        if pause := refusals.pause(clock.now(), patience):
            # Another slot's request was refused at the same time.
            return self._build_refused(pause)
        if refusals.count:
            return InvalidGrant("the upstream refused the API key twice", API_KEY_REFUSED)
        first = Refusals().add(fingerprint(self._key), history.now, patience, history.granted_at, API_KEY_REFUSED)
        self._store.store_refusals(self._lease, first)
        self._is_suspected = True
        return self._build_refused(first.pause(history.now, patience) if first else 0.0)

    def _build_outage(self, *, was_refused: bool) -> TokenRefused:
        """The refusal of a key while none is accepted; only one that was refused before is known to be unusable."""
        code = API_KEYS_REFUSED if was_refused or self._outage_refusals else API_KEY_REFUSED
        if clock.now() >= self._outage_retry_at:
            pause = compute_backoff(PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS, self._outage_refusals)
            self._outage_retry_at = clock.now() + pause * random.uniform(*JITTER)
            self._outage_refusals += 1
        return self._build_refused(self._outage_retry_at - clock.now(), code)

    def _build_refused(self, pause: float, code: str = API_KEY_REFUSED) -> TokenRefused:
        message = f"the upstream has refused the API key: it is tried again in {pause:.0f} s"
        log.warning("%s", message, extra=self._log_fields("token_refused"))
        return TokenRefused(message, pause, is_last=True, code=code)

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}
