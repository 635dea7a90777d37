"""Caches a credential's access token and has it refreshed early, as a single flight (I4)."""

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import gevent
from redis.exceptions import RedisError

from shared import clock
from shared.backoff import compute_backoff
from shared.errors import (
    InvalidGrant,
    LeaseLost,
    RefreshPending,
    TokenEndpointDown,
    TokenError,
    WrongSecretKey,
)
from shared.observability.counters import Counters
from workers.credentials.leases import Lease
from workers.credentials.refresh_request import Refresher, RefreshRequest
from workers.credentials.token_breaker import TokenBreaker
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
RETRY_SECONDS, MAX_RETRY_SECONDS = 5.0, 1280.0
#: Seconds between two looks at a credential that another host's refresher is refreshing.
PENDING_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class RefreshServices:
    """What the access tokens of a process share."""

    store: TokenStore
    refresher: Refresher
    #: Pool -> number of its workers in this process.
    worker_counts: Mapping[str, int]
    counters: Counters
    #: Seconds for which a refused credential is presented again (FARM_REFUSAL_PATIENCE).
    patience: float


class AccessToken:
    """The access token of one leased credential."""

    def __init__(self, lease: Lease, breaker: TokenBreaker, services: RefreshServices) -> None:
        self._lease = lease
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
            backoff = compute_backoff(RETRY_SECONDS, MAX_RETRY_SECONDS, self._refused_renewals)
            pause = max(backoff * random.uniform(*JITTER), getattr(failure, "retry_after", None) or 0.0)
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
        """1. Uses a fresh token that another process has stored. 2. Else has it refreshed, and uses it once stored."""
        while not self._use_stored(stale):
            if not self._lease.is_held():
                raise LeaseLost("the lease expired before the refresh")
            started_at = time.monotonic()
            try:
                self._services.refresher.refresh(self._build_request(is_forced=is_forced))
            except RefreshPending:
                gevent.sleep(PENDING_PAUSE_SECONDS * random.uniform(*JITTER))
                continue
            _, access_token, expires_at = self._store.load(self._lease.credential_id)
            self._refresh_seconds = time.monotonic() - started_at
            self._set_token(access_token, expires_at - clock.now())
            return

    def _use_stored(self, stale: str) -> bool:
        """Takes a valid token from the store, other than `stale`; returns whether it need not be renewed yet."""
        _, access_token, expires_at = self._store.load(self._lease.credential_id)
        lifetime = expires_at - clock.now()
        if not access_token or access_token == stale or lifetime <= 0:
            return False
        self._set_token(access_token, lifetime)
        return lifetime > MAX_RENEW_AHEAD_SECONDS

    def _build_request(self, *, is_forced: bool) -> RefreshRequest:
        lease = self._lease
        return RefreshRequest(
            lease.pool,
            lease.credential_id,
            lease.value,
            lease.valid_until,
            is_forced=is_forced,
            is_probe=self._breaker.probing_credential == lease.credential_id,
            worker_count=self._services.worker_counts.get(lease.pool, 0),
            seals_header=self._store.seals_header,
        )

    def _set_token(self, token: str, lifetime: float) -> None:
        self._token, self._refused_renewals = token, 0
        self._expires_at = clock.now() + lifetime
        self._spare_seconds = min(MAX_SPARE_SECONDS, SPARE_SHARE * lifetime)
        usual = min(MAX_RENEW_AHEAD_SECONDS, RENEW_AT_REMAINING_SHARE * lifetime) * random.uniform(*JITTER)
        slow = min(MAX_RENEW_AHEAD_SHARE * lifetime, RENEW_AHEAD_DURATIONS * self._refresh_seconds)
        self.renew_at = self._expires_at - max(usual, slow)

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._lease.pool, "credential_id": self._lease.credential_id}


#: Why no access token can be obtained, apart from a cancelled attempt.
TOKEN_FAILURES = (TokenError, LeaseLost, WrongSecretKey)
