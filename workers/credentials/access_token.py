"""Caches a credential's access token and refreshes it early, as a single flight (I4)."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gevent
from gevent.lock import BoundedSemaphore
from redis.exceptions import RedisError

from shared import clock, names
from shared.credentials.sealing import fingerprint
from shared.errors import (
    BreakerOpen,
    InvalidGrant,
    LeaseLost,
    TokenEndpointDown,
    TokenError,
    TokenRefused,
    WrongSecretKey,
)
from shared.observability.counters import Counters
from shared.redis_connection.retry import retry_forever
from workers.credentials.leases import Lease
from workers.credentials.refusals import Refusals
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint import TokenEndpoint
from workers.credentials.token_response import INVALID_GRANT, TokenGrant
from workers.credentials.token_store import TokenStore

log = logging.getLogger("farm.tokens")
#: A token is renewed when this share of its lifetime remains, at most so many seconds before it expires.
RENEW_AT_REMAINING_SHARE = 0.15
MAX_RENEW_AHEAD_SECONDS = 60.0
#: It is renewed earlier if refreshes take long (a distant endpoint, the wait for Redis's disk): by so many times the
#: duration of the last one, at most this share of the lifetime ahead.
RENEW_AHEAD_DURATIONS, MAX_RENEW_AHEAD_SHARE = 1.5, 0.5
#: While it is renewed, requests use it as long as this share of its lifetime remains, at most so many seconds.
SPARE_SHARE, MAX_SPARE_SECONDS = 0.05, 5.0
#: Factors that spread renewals, so that tokens issued together are not renewed together.
JITTER = (0.8, 1.2)
#: Seconds after which a failed early renewal is retried while the token is still valid; doubled with each refusal.
RETRY_SECONDS = 5.0


@dataclass(frozen=True, repr=False)
class Exchange:
    """A grant, and the refresh tokens that it concerns. It has no repr, because it consists of secrets."""

    grant: TokenGrant
    #: The one that is stored as the current.
    current_token: str
    #: The one that was exchanged: the current or the superseded one.
    exchanged_token: str


@dataclass(frozen=True)
class RefreshServices:
    """What the access tokens of a process share."""

    store: TokenStore
    counters: Counters
    #: Limits concurrent calls of token endpoints in this process.
    limit: BoundedSemaphore
    #: Seconds for which a refused refresh token is presented again (FARM_REFUSAL_PATIENCE).
    patience: float
    #: Pool -> number of its workers in this process.
    worker_counts: Mapping[str, int]
    #: Finds out whose account a lease's credential is, given the grant and the refresh token that is stored by then.
    #: Raises LeaseLost if another credential has the account.
    learn_account: Callable[[Lease, TokenGrant, str], None] = lambda *_: None


class AccessToken:
    """The access token of one leased credential."""

    def __init__(
        self,
        lease: Lease,
        endpoint: TokenEndpoint,
        breaker: TokenBreaker,
        services: RefreshServices,
    ) -> None:
        self._lease = lease
        self._endpoint = endpoint
        self._store = services.store
        self._breaker = breaker
        self._services = services
        self._token = ""
        #: When the token is due for renewal, seconds since the epoch.
        self.renew_at = 0.0
        self._expires_at = 0.0
        #: Seconds before it expires from which a request waits for the new one.
        self._spare_seconds = 0.0
        #: Early renewals that were refused, not by a failing endpoint, since the last grant.
        self._refused_renewals = 0
        #: Seconds that the last refresh took until the grant was durable.
        self._refresh_seconds = 0.0
        self._refresh_greenlet: gevent.Greenlet | None = None

    def is_fresh(self) -> bool:
        """Whether there is a token that is not due for renewal yet."""
        return bool(self._token) and clock.now() < self.renew_at

    def is_usable(self) -> bool:
        """Whether there is a token that a request need not wait for: a fresh one, or one that is being renewed."""
        if self.is_fresh():
            return True
        return bool(self._token) and self.is_refreshing() and clock.now() < self._expires_at - self._spare_seconds

    def is_valid(self) -> bool:
        """Whether there is a token that has not expired."""
        return bool(self._token) and clock.now() < self._expires_at

    def is_refreshing(self) -> bool:
        return self._refresh_greenlet is not None and not self._refresh_greenlet.ready()

    def get(self, stale: str = "", *, is_forced: bool = False) -> str:
        """Returns a valid access token other than `stale`. Raises one of TOKEN_FAILURES.

        The refresh runs in a greenlet of its own, so that a cancelled attempt does not cancel it for the others. A
        forced one neither waits for the pause after a refusal nor for the breaker.
        """
        if self._token != stale and self.is_usable():
            return self._token
        if not self.is_refreshing():
            self._refresh_greenlet = gevent.spawn(self._try_refresh, stale, is_forced=is_forced)
        assert self._refresh_greenlet is not None
        failure = self._refresh_greenlet.get()
        is_transient = isinstance(failure, TokenError) and not isinstance(failure, InvalidGrant)
        if is_transient and self._token != stale and self.is_valid():
            self._refused_renewals += not isinstance(failure, TokenEndpointDown)
            backoff = RETRY_SECONDS * 2 ** min(self._refused_renewals, 8) * random.uniform(*JITTER)
            pause = max(backoff, getattr(failure, "retry_after", None) or 0.0)
            self.renew_at = min(self._expires_at, clock.now() + pause)
        elif failure is not None:
            raise failure
        return self._token

    def force_refresh(self) -> None:
        """Refreshes even a fresh token. Raises one of TOKEN_FAILURES."""
        stored = self._store.load(self._lease.credential_id)[1]
        self._token = self._token or stored
        self.get(stale=self._token, is_forced=True)

    def load_refresh_token(self) -> str:
        """Raises TokenError when the credential is gone."""
        return self._store.load(self._lease.credential_id)[0]

    def record_accepted(self) -> None:
        """The upstream has accepted the token, which its endpoint has said before."""

    def wait_for_refresh(self) -> None:
        """Waits for a running refresh; to be called before the lease is released."""
        if self._refresh_greenlet is not None:
            self._refresh_greenlet.join()

    def _try_refresh(self, stale: str, *, is_forced: bool) -> BaseException | None:
        """Returns the exception instead of raising it, because gevent prints exceptions that leave a greenlet."""
        try:
            self._refresh(stale, is_forced=is_forced)
        except (*TOKEN_FAILURES, RedisError) as error:
            return error
        except Exception as error:
            # A failure like others, with its backoff: the worker would end, be started again and fail again.
            log.exception("a refresh failed unexpectedly", extra=self._log_fields("refresh_crashed"))
            return TokenError(f"the refresh failed unexpectedly: {type(error).__name__}")
        return None

    def _refresh(self, stale: str, *, is_forced: bool) -> None:
        """1. Uses a fresh token that another process has stored. 2. Else refreshes. 3. Stores. 4. Only then uses it."""
        refresh_token, access_token, expires_at = self._store.load(self._lease.credential_id)
        lifetime = expires_at - clock.now()
        if access_token and access_token != stale and lifetime > 0:
            self._set_token(access_token, lifetime)
            if lifetime > MAX_RENEW_AHEAD_SECONDS:
                return
        started_at = time.monotonic()
        exchange = self._exchange(refresh_token, is_forced=is_forced)
        retry_forever(
            lambda: self._store.store(self._lease, exchange.current_token, exchange.grant, exchange.exchanged_token),
            "a rotated token waits to be stored",
        )
        if exchange.grant.unusable:
            raise TokenEndpointDown(exchange.grant.unusable, "unusable_access_token")
        self._record_grant()
        self._refresh_seconds = time.monotonic() - started_at
        stored_token = exchange.grant.refresh_token or exchange.exchanged_token
        self._services.learn_account(self._lease, exchange.grant, stored_token)
        self._set_token(exchange.grant.access_token, exchange.grant.expires_in)

    def _exchange(self, refresh_token: str, *, is_forced: bool) -> Exchange:
        """Presents the current refresh token; the superseded one only when the current one was refused many times.

        If another process has stored a newer token meanwhile, presents that at once.
        """
        refusals = self._store.load_refusals(self._lease.credential_id)
        if refusals.token != fingerprint(refresh_token):
            refusals = Refusals()
        is_exempt = is_forced and not self._is_unproven_private()
        pause = refusals.pause(clock.now(), self._services.patience)
        if pause and not is_exempt:
            raise build_refused(refusals, pause)
        current_token = presented = refresh_token
        if refusals.is_last and not pause and not self._breaker.is_open:
            presented = self._store.load_previous(self._lease.credential_id) or current_token
        while True:
            try:
                grant = self._call_endpoint(presented, is_exempt=is_exempt)
                return Exchange(grant, current_token, presented)
            except InvalidGrant as error:
                stored = self._store.load(self._lease.credential_id)[0]
                if stored == current_token:
                    raise self._judge_refusal(current_token, refusals, error.code) from None
                current_token, presented, refusals = stored, stored, Refusals()

    def _judge_refusal(self, refresh_token: str, refusals: Refusals, code: str) -> TokenError:
        """What a refusal means: the credential is dead, the token is presented again, or the endpoint is at fault."""
        if self._is_unproven_private():
            return InvalidGrant("the token endpoint refuses this refresh token", code)
        history = self._breaker.record_failure(self._lease.credential_id, "invalid_grant", refusals.refused_at)
        if history.is_open:
            return self._endpoint_down()
        if pause := refusals.pause(history.now, self._services.patience):
            return build_refused(refusals, pause)
        next_refusals = refusals.add(
            fingerprint(refresh_token), history.now, self._services.patience, history.granted_at, code
        )
        self._store.store_refusals(self._lease, next_refusals)
        if next_refusals is None:
            return InvalidGrant(f"the token endpoint returned {code} {refusals.count + 1} times", code)
        refused = build_refused(next_refusals, next_refusals.pause(history.now, self._services.patience))
        log.warning("%s", refused, extra=self._log_fields("token_refused"))
        return refused

    def _endpoint_down(self) -> TokenEndpointDown:
        pause = self._breaker.retry_after(self._services.worker_counts.get(self._lease.pool, 0))
        return TokenEndpointDown("the token endpoint fails for several credentials and is being probed", "", pause)

    def _is_unproven_private(self) -> bool:
        """Whether a caller has just presented the token: it may be anything, and proves nothing about the endpoint."""
        return names.is_private(self._lease.pool) and not self._store.is_proven(self._lease.credential_id)

    def _call_endpoint(self, refresh_token: str, *, is_exempt: bool) -> TokenGrant:
        """Raises TokenEndpointDown while the breaker is open, unless the call is exempt from it."""
        try:
            with self._services.limit:
                if self._breaker.is_open and not is_exempt:
                    raise BreakerOpen("the token endpoint is being probed")
                if not self._lease.is_held():
                    raise LeaseLost("the lease expired before the refresh")
                grant = self._endpoint.refresh(refresh_token)
        except BreakerOpen:
            raise self._endpoint_down() from None
        except TokenError as error:
            outcome = label_refresh_outcome(error)
            self._services.counters.increment("token_refreshes", outcome)
            log.warning("no access token: %s", error, extra=self._log_fields("token_refused"))
            if not isinstance(error, InvalidGrant) and not self._is_unproven_private():
                self._breaker.record_failure(self._lease.credential_id, outcome)
            raise
        self._services.counters.increment("token_refreshes", "ok")
        log.debug("access token refreshed", extra=self._log_fields("token_refreshed"))
        return grant

    def _record_grant(self) -> None:
        try:
            self._breaker.record_grant()
        except RedisError as error:
            log.warning("token breaker not updated: %s", error, extra=self._log_fields("redis_lost"))

    def _set_token(self, token: str, lifetime: float) -> None:
        self._token, self._refused_renewals = token, 0
        self._expires_at = clock.now() + lifetime
        self._spare_seconds = min(MAX_SPARE_SECONDS, SPARE_SHARE * lifetime)
        usual = min(MAX_RENEW_AHEAD_SECONDS, RENEW_AT_REMAINING_SHARE * lifetime) * random.uniform(*JITTER)
        slow = min(MAX_RENEW_AHEAD_SHARE * lifetime, RENEW_AHEAD_DURATIONS * self._refresh_seconds)
        self.renew_at = self._expires_at - max(usual, slow)

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}


def build_refused(refusals: Refusals, pause: float) -> TokenRefused:
    """The error that says what happens next; `pause` is in seconds."""
    presented = "the superseded token is presented, the last try" if refusals.is_last else "it is presented again"
    code = refusals.code or INVALID_GRANT
    message = f"the token endpoint has refused the refresh token ({code}, {refusals.count}): {presented}"
    return TokenRefused(f"{message} in {pause:.0f} s", pause, is_last=refusals.is_last, code=code)


def label_refresh_outcome(error: Exception) -> str:
    """The outcome label of a failed refresh."""
    if isinstance(error, InvalidGrant):
        return "invalid_grant"
    return "refused" if type(error) is TokenError else "unavailable"


#: Why no access token can be obtained, apart from a cancelled attempt.
TOKEN_FAILURES = (TokenError, LeaseLost, WrongSecretKey)
