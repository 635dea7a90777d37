"""The condition of a credential: whether it may work, and what a failed attempt means for it (I5).

A failure is the credential's (it cools, and everybody sees it) or the upstream's (a short pause that nobody has to
see, and the pool's breaker is told). It is never judged by the text of an error.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from redis.exceptions import RedisError

from shared.errors import LeaseLost
from shared.settings.schema import PoolSettings
from workers.attempt.outcomes import Failed, classify_token_failure
from workers.credentials.access_token import TOKEN_FAILURES, AccessToken
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.cooldown import Cooldown
from workers.credentials.leases import Lease
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.worker")
#: Outcomes that are the upstream's fault, and the longest pause in seconds that they give one account.
UPSTREAM_FAULTS = frozenset({"upstream_error", "unreachable", "timeout", "cut", "no_answer"})
MAX_UPSTREAM_COOLDOWN_SECONDS = 4.0
#: Outcomes that are the account's: the upstream is there.
CREDENTIAL_FAULTS = frozenset({"rate_limited", "refused"})
#: Longest pauses in seconds, without a Retry-After, when an account is limited, and when a token endpoint is down.
MAX_RATE_LIMIT_COOLDOWN_SECONDS = 60.0
MAX_TOKEN_COOLDOWN_SECONDS = 15.0
#: Seconds from which on a pause after a fault of the upstream is shown as cooling.
MIN_PUBLISHED_COOLDOWN_SECONDS = 2.0


class CredentialHealth:
    """The condition of one credential."""

    def __init__(
        self, lease: Lease, pool: PoolSettings, services: WorkerServices, token: AccessToken, stop: Callable[[], None]
    ) -> None:
        self._lease = lease
        self._pool = pool
        self._services = services
        self._token = token
        self._stop = stop
        self._cooling_published_at = float("inf")
        #: Whether the token endpoint has refused the refresh token for good.
        self.is_token_refused = False
        self.cooldown = Cooldown(services.settings.cooling_limit)
        if lease.cooling_until:
            self.cooldown.resume(max(0.0, lease.cooling_until - time.time()))
            self._cooling_published_at = time.monotonic()

    def can_work(self) -> bool:
        """Whether it may take a job now."""
        return not self.cooldown.remaining() and self._breaker.allows(self._id)

    @property
    def _id(self) -> str:
        return self._lease.credential_id

    @property
    def _breaker(self) -> CircuitBreaker:
        return self._services.breakers[self._pool.name]

    def ensure_fresh_token(self) -> bool:
        """Before a job is taken: has an access token ready, so that no request pays for a token endpoint that fails."""
        if self.cooldown.take_ended() and self._cooling_published_at < float("inf"):
            self._set_state("active")
        if self._token.is_fresh():
            return True
        try:
            self._token.get()
        except TOKEN_FAILURES as error:
            self.handle_token_failure(error)
            return False
        return True

    def needs_refresh(self) -> bool:
        """Whether an idle worker should renew its token now."""
        return not self._token.is_fresh() and not self._token.is_refreshing() and not self.cooldown.remaining()

    def handle_token_failure(self, error: Exception) -> None:
        """No access token could be had."""
        if isinstance(error, LeaseLost):
            self._stop()
            return
        failed = classify_token_failure(error)
        self.begin_cooldown(failed)
        self.publish_state(failed)

    # What an attempt has told

    def record_first_byte(self, asked_at: float) -> None:
        """The first byte is here of what was asked at that time; told apart, because this attempt may be ended."""
        if self._breaker.has_faults:
            gevent.spawn(self._close_breaker, asked_at)

    def record_success(self) -> None:
        """The account's answer is whole."""
        self.cooldown.reset_failures()

    def _close_breaker(self, asked_at: float) -> None:
        try:
            self._breaker.record_success(asked_at)
        except (RedisError, OSError) as error:
            log.warning("breaker not closed: %s", error, extra=self._fields("redis_lost", ""))

    def record_failure(self, failed: Failed, request_id: str, asked_at: float) -> bool:
        """Tells the pool's breaker; returns whether the attempt was a probe, which the request does not pay for."""
        breaker = self._breaker
        probe = breaker.is_open and breaker.probing_credential == self._id
        answered = failed.outcome in CREDENTIAL_FAULTS or (failed.response is not None and failed.response.status < 500)
        if failed.outcome in UPSTREAM_FAULTS and not failed.blameless and not answered:
            try:
                breaker.record_fault(
                    self._id, request_id, failed.outcome, self._services.worker_counts[self._pool.name]
                )
            except (RedisError, OSError) as error:
                log.warning("breaker not kept: %s", error, extra=self._fields("redis_lost", ""))
        elif answered:
            self._close_breaker(asked_at)
        return probe

    def begin_cooldown(self, failed: Failed) -> None:
        """A failing credential leaves the queue for a while, or for good."""
        if failed.fatal:
            self.is_token_refused = True
            self._stop()
        elif not failed.blameless:
            asked, most = failed.retry_after, max_cooldown(failed.outcome)
            if asked is not None and failed.outcome in UPSTREAM_FAULTS:
                asked = min(asked, most)
            self.cooldown.begin(asked, most)

    def publish_state(self, failed: Failed) -> None:
        """Tells everybody, after the job is safe."""
        if failed.fatal:
            self._set_state("dead", "invalid_grant")
        elif not failed.blameless and self._should_publish(failed):
            self._set_state("cooling", failed.outcome, time.time() + self.cooldown.remaining())

    def _should_publish(self, failed: Failed) -> bool:
        if failed.outcome == "token_endpoint_down":
            return False
        if failed.outcome in UPSTREAM_FAULTS:
            return not self._breaker.is_open and self.cooldown.remaining() >= MIN_PUBLISHED_COOLDOWN_SECONDS
        return True

    def disable(self, reason: str) -> None:
        """A person's word."""
        self._set_state("disabled", reason)

    def observe_state(self, state: str, asked_at: float) -> None:
        """The state that everybody sees; `active` while it cools is a person's word."""
        if state == "active" and asked_at > self._cooling_published_at and self.cooldown.remaining():
            self.cooldown.end()

    def _set_state(self, state: str, reason: str = "", until: float = 0) -> None:
        try:
            self._services.set_state(self._pool.name, self._id, state, reason, until)
            self._cooling_published_at = time.monotonic() if state == "cooling" else float("inf")
        except (RedisError, OSError) as error:
            log.warning("state not kept: %s", error, extra=self._fields("redis_lost", state))

    def _fields(self, action: str, reason: str) -> dict[str, Any]:
        return {"action": action, "credential_id": self._id, "pool": self._pool.name, "reason": reason}


def max_cooldown(outcome: str) -> float:
    """Seconds that a pause without a Retry-After may take; the limit of all pauses bounds every other one."""
    if outcome in UPSTREAM_FAULTS:
        return MAX_UPSTREAM_COOLDOWN_SECONDS
    return {"rate_limited": MAX_RATE_LIMIT_COOLDOWN_SECONDS, "token_endpoint_down": MAX_TOKEN_COOLDOWN_SECONDS}.get(
        outcome, float("inf")
    )
