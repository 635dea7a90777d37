"""The health of a credential: whether it can take a job, and what a failed attempt means for it (I5).

Blame needs evidence (workers/attempt/blame.py, workers/credentials/suspicion.py). One failure pauses nothing, except a
Retry-After of a 429 and a failure to get an access token; a cooldown that a culprit has caused is taken back. Faults of
the upstream also count towards the pool's circuit breaker. Nothing is judged by the text of an error.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared import clock
from shared.credentials.evidence import NO_EVIDENCE, UPSTREAM, Evidence
from shared.credentials.store import Credentials
from shared.errors import LeaseLost
from shared.protocol.messages import RelayRequest
from shared.settings.schema import PoolSettings
from workers.attempt.blame import TriedCredential, describe_failure, is_culprit
from workers.attempt.outcomes import OUT_OF_CREDIT, Failed, classify_token_failure
from workers.credentials.access_token import TOKEN_FAILURES, AccessToken
from workers.credentials.account_limits.verdict import GO_ON, WAIT
from workers.credentials.api_key import ApiKey
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.cooldown import BACKOFF_SECONDS, Cooldown
from workers.credentials.leases import Lease
from workers.credentials.suspicion import Suspicion
from workers.worker.activity_recorder import CredentialActivity
from workers.worker.limit_rest import LimitRest
from workers.worker.model_rests import ModelRests
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.worker")
#: Outcomes that mostly are the upstream's fault, and those that mostly are not, and prove that the upstream is up.
UPSTREAM_FAULTS = frozenset({"upstream_error", "unreachable", "timeout", "cut", "no_answer"})
CREDENTIAL_FAULTS = frozenset({"rate_limited", "refused", OUT_OF_CREDIT})
#: Longest cooldowns in seconds, without a Retry-After, of a rate limit, and of a token endpoint that is down.
MAX_RATE_LIMIT_COOLDOWN_SECONDS = 60.0
MAX_TOKEN_COOLDOWN_SECONDS = 15.0
#: Cooldown in seconds after the first refusal of a token request that doesn't mean the refresh token; doubled with each
#: further one. The cause is often a setting, and some endpoints lock out clients that ask too often.
FIRST_REFUSAL_PAUSE_SECONDS = 5.0
#: Shortest cooldown in seconds that is published as state `cooling`, unless the upstream has asked for it.
MIN_PUBLISHED_COOLDOWN_SECONDS = 2.0

#: `Lease.cooling_until` of a credential that was resting by its own limits.
OWN_LIMIT = -1.0
#: Reason of a cooldown until the upstream's limit is reset.
ALLOWANCE_USED = "allowance_used"


class CredentialHealth:
    """The health of one credential, shared by the workers of its slots."""

    def __init__(
        self,
        lease: Lease,
        pool: PoolSettings,
        services: WorkerServices,
        token: AccessToken | ApiKey,
        activity: CredentialActivity,
        stop: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._pool = pool
        self._services = services
        self._token = token
        self._activity = activity
        #: Stops the workers of the credential.
        self._stop = stop
        #: When state `cooling` was published, by the monotonic clock; inf while another state is.
        self._cooling_published_at = float("inf")
        #: Whether the token endpoint has refused the refresh token for good.
        self.is_token_refused = False
        self.cooldown = Cooldown(services.settings.cooling_limit)
        #: The models for which it rests, while it serves others.
        self.models = ModelRests(lease, pool, services)
        self._suspicion = Suspicion()
        #: Set when a cooldown may have ended early.
        self.changed = Event()
        #: The last failure, and when it was (seconds since the epoch).
        self._last_failed: Failed | None = None
        self._last_failed_at = 0.0
        self.limit_rest = LimitRest()
        if lease.cooling_until > 0:
            self.cooldown.resume(max(0.0, lease.cooling_until - clock.now()))
            self._cooling_published_at = time.monotonic()

    def resume_rest(self, *, has_limits: bool) -> None:
        """Takes over a rest by the account's own limits: they tell anew; without any, it is over."""
        if self._lease.cooling_until == OWN_LIMIT and not has_limits:
            self._cooling_published_at = time.monotonic()

    def can_work(self) -> bool:
        """Whether a worker of the credential may take a job now."""
        return not self.seconds_to_rest() and self._breaker.allows(self._id)

    def seconds_to_rest(self) -> float:
        """Seconds until the end of its cooldown, or of a rest by the account's own limits; 0.0 for neither."""
        remaining, limit_rest = self.cooldown.remaining(), self.limit_rest
        return max(remaining, limit_rest.remaining()) if limit_rest.has_begun else remaining

    def end_limit_rest(self, *, has_limits: bool = True) -> None:
        """The account's limits may have changed: the next look tells whether it has to rest. With none it is over."""
        if not has_limits and (self.limit_rest.is_published or self._lease.cooling_until == OWN_LIMIT):
            self._cooling_published_at = time.monotonic()
        self.limit_rest.end()
        self.changed.set()

    @property
    def is_resting_briefly(self) -> bool:
        """Whether it rests, by its limits alone, for too short a time to be shown."""
        return bool(self.limit_rest.remaining()) and not (self.limit_rest.is_published or self.cooldown.remaining())

    @property
    def _id(self) -> str:
        return self._lease.credential_id

    @property
    def _breaker(self) -> CircuitBreaker:
        return self._services.breakers[self._pool.name]

    def ensure_fresh_token(self) -> bool:
        """Gets an access token before a job is taken, so that no request pays for a failing token endpoint.

        Returns whether there is a token. Also publishes the end of a cooldown, once there is one.
        """
        try:
            self._token.get()
        except TOKEN_FAILURES as error:
            self.handle_token_failure(error)
            return False
        if self._cooling_published_at < float("inf") and not self.cooldown.remaining():
            self._set_state("active")
        return True

    def needs_refresh(self) -> bool:
        """Whether to refresh the access token now, apart from a request."""
        return not self._token.is_fresh() and not self._token.is_refreshing() and not self.cooldown.remaining()

    def handle_token_failure(self, error: Exception) -> None:
        """Handles one of TOKEN_FAILURES outside an attempt."""
        if isinstance(error, LeaseLost):
            self._stop()
            return
        failed = classify_token_failure(error)
        self.begin_cooldown(failed)
        self.publish_state(failed)

    def record_first_byte(self, attempted_at: float) -> None:
        """Records the first byte of an attempt made at that time (seconds since the epoch).

        The breaker is closed in a greenlet of its own, because this one may be cancelled.
        """
        if self._breaker.has_faults:
            gevent.spawn(self._close_breaker, attempted_at)

    def record_success(self, key: str) -> None:
        """Records that a request of this API key was served."""
        self.cooldown.reset_failures()
        self._suspicion.record_success()
        self._breaker.record_served(key)
        self._token.record_accepted()

    def record_model_served(self, model: str, attempted_at: float) -> None:
        """Records that a request for this model was served, which was sent at that time (seconds since the epoch)."""
        if self.models.record_served(model, attempted_at):
            self._end_rest_as_a_whole()

    def _close_breaker(self, attempted_at: float) -> None:
        try:
            self._breaker.record_success(attempted_at)
        except RedisError as error:
            log.warning("breaker not closed: %s", error, extra=self._log_fields("redis_lost", ""))

    def record_failure(self, failed: Failed, request: RelayRequest, attempted_at: float) -> bool:
        """Records the failure in the pool's breaker.

        Returns whether the attempt was a probe, which does not count as an attempt of the request.
        """
        breaker = self._breaker
        was_probe = breaker.is_open and breaker.probing_credential == self._id
        upstream_is_up = failed.outcome in CREDENTIAL_FAULTS or (
            failed.response is not None and failed.response.status < 500
        )
        if failed.outcome in UPSTREAM_FAULTS and not failed.blameless and not upstream_is_up:
            try:
                worker_count = self._services.worker_counts[self._pool.name]
                breaker.record_fault(self._id, request.id, failed.outcome, worker_count, request.key)
            except RedisError as error:
                log.warning("breaker not updated: %s", error, extra=self._log_fields("redis_lost", ""))
        elif upstream_is_up:
            self._close_breaker(attempted_at)
        return was_probe

    @property
    def is_credible(self) -> bool:
        """Whether the credential's latest request was served, so that a failure now counts against its request."""
        return self._suspicion.is_credible

    def describe_attempt(self, failed: Failed) -> TriedCredential:
        """The failed attempt, as the request's next credential learns of it."""
        is_credible = self.is_credible and not failed.blameless and not failed.fatal
        return TriedCredential(self._id, describe_failure(failed), is_credible)

    def is_request_to_blame(
        self, attempts: Collection[TriedCredential], failed: Failed, request: RelayRequest, model: str
    ) -> bool:
        """Whether the request is at fault, given all its attempts.

        Not while requests of other API keys fail too, nor, if limits are counted per model, others for the same model.
        """
        breaker = self._breaker
        if failed.outcome in UPSTREAM_FAULTS and (breaker.is_open or breaker.has_faults_of_others(request.key)):
            return False
        if failed.outcome == "rate_limited" and self.models.has_refused_others(model, request.id):
            return False
        return is_culprit(attempts, failed)

    def begin_cooldown(self, failed: Failed, request: RelayRequest | None = None, model: str = "") -> bool:
        """Starts the cooldown that the evidence justifies; stops the workers instead when the refresh token is dead.

        `request` is the one that has failed, for this model, None outside an attempt. Returns whether it has started a
        cooldown, or a rest for the model.
        """
        if not failed.blameless:
            self._activity.record_failure(failed.outcome, failed.evidence, is_attempt=request is not None)
        if failed.fatal:
            self.is_token_refused = True
            self._stop()
            return False
        if failed.blameless:
            return False
        self._last_failed, self._last_failed_at = failed, clock.now()
        is_refusal = failed.outcome in UPSTREAM_FAULTS | CREDENTIAL_FAULTS
        if request is None or not is_refusal:
            first = FIRST_REFUSAL_PAUSE_SECONDS if failed.outcome == "no_token" else BACKOFF_SECONDS
            self.cooldown.begin(failed.retry_after, max_cooldown(failed.outcome), first_backoff=first)
            return True
        is_limit = failed.outcome == "rate_limited"
        if is_limit and self.models.refuse(model, failed.retry_after, request.id):
            return True
        self._suspicion.record_failure(request.id, request.key)
        has_paused = self._pause_as_proven(failed, request.id)
        if is_limit and failed.retry_after is None:
            self.models.explain(model, self.cooldown.remaining())
        return has_paused

    def _pause_as_proven(self, failed: Failed, cause: str) -> bool:
        """Starts the cooldown that the evidence against the credential justifies, and returns whether there is one."""
        if failed.outcome == "rate_limited" and failed.retry_after is not None:
            self.cooldown.begin(failed.retry_after, cause=cause)
            return True
        if failed.outcome == OUT_OF_CREDIT and self._suspicion.has_proof:
            # As long as a cooldown may be: nothing but a payment ends it, and the probe after it costs an attempt.
            self.cooldown.begin(self._services.settings.cooling_limit, cause=cause)
            return True
        are_others_served = self._breaker.are_others_served(self._suspicion.keys)
        longest = self._suspicion.find_max_cooldown(are_others_served=are_others_served)
        if longest:
            self.cooldown.begin(None, min(longest, max_cooldown(failed.outcome)), cause)
        return bool(longest)

    def convict(self, request_id: str) -> None:
        """The request that has failed here was served by another credential: this one is at fault.

        Unless the breaker has opened since: then the upstream was.
        """
        if self._breaker.opened_at > self._last_failed_at:
            self._suspicion.clear_all()
        elif self._suspicion.convict(request_id) and self._last_failed is not None and not self.cooldown.remaining():
            self._pause_as_proven(replace(self._last_failed, retry_after=None), request_id)
            gevent.spawn(self.publish_state, self._last_failed)

    def take_back(self, request_id: str) -> bool:
        """The request is a culprit: what it has caused here is taken back. The worker publishes the new state.

        Returns whether the rest for a model has become shorter.
        """
        self._suspicion.exonerate(request_id)
        self.cooldown.take_back(request_id)
        self._breaker.forget_request(request_id)
        self.changed.set()
        return self.models.take_back(request_id)

    def publish_state(self, failed: Failed) -> None:
        """Publishes the state that follows from a failure; called after the job is safe."""
        if failed.fatal:
            self._set_state("dead", failed.reason, evidence=failed.evidence)
        elif not failed.blameless and self._should_publish(failed):
            until = clock.now() + self.cooldown.remaining()
            self._set_state("cooling", failed.reason, until, failed.evidence)

    def _should_publish(self, failed: Failed) -> bool:
        if not self.cooldown.remaining() or (failed.outcome == "token_endpoint_down" and not failed.detail):
            return False
        if failed.outcome in UPSTREAM_FAULTS and self._breaker.is_open:
            return False
        is_justified = failed.outcome == "rate_limited" and failed.retry_after is not None
        if is_justified or failed.outcome not in UPSTREAM_FAULTS | CREDENTIAL_FAULTS:
            return True
        return self.cooldown.remaining() >= MIN_PUBLISHED_COOLDOWN_SECONDS

    def rest(self, seconds: float, status: int, model: str) -> None:
        """Rests the credential, whose account has nothing left for so many seconds, before the upstream has to say 429.

        `status` is that of the response that has said so, for this model. If the upstream counts per model, the
        credential rests for this one only.

        To be called before its job is settled, so that the worker takes no other one, in this process or, if the
        credential is leased elsewhere, in the next.
        """
        if not seconds or self.models.rest(model, seconds):
            return
        self.cooldown.extend(seconds)
        if seconds >= MIN_PUBLISHED_COOLDOWN_SECONDS:
            until, evidence = clock.now() + self.cooldown.remaining(), Evidence(UPSTREAM, status, retry_after=seconds)
            self._set_state("cooling", ALLOWANCE_USED, until, evidence)

    def decide_trial(self) -> str:
        """While it rests as a whole, maybe because of a model only: GO_ON (it no longer rests), TRY or WAIT."""
        remaining = self.cooldown.remaining()
        if not remaining or self.limit_rest.remaining() or not self._breaker.allows(self._id):
            return WAIT
        decision = self.models.decide(remaining)
        if decision == GO_ON:
            self._end_rest_as_a_whole()
        return decision

    def _end_rest_as_a_whole(self) -> None:
        self.cooldown.end()
        self.changed.set()

    def disable(self, reason: str) -> None:
        """Disables the credential for an operator."""
        self._set_state("disabled", reason)

    def suspend(self, reason: str) -> None:
        """Disables the credential for the time of an operation."""
        Credentials(self._services.redis).suspend(self._pool.name, self._id, reason)

    def resume(self) -> None:
        """Puts a suspended credential back into its former state."""
        Credentials(self._services.redis).resume(self._pool.name, self._id)

    def observe_state(self, state: str, read_at: float) -> None:
        """Takes note of the state in Redis, read at that time (monotonic clock).

        `active` during a published cooldown means that an operator has ended it.
        """
        if state == "active" and read_at > self._cooling_published_at and self.cooldown.remaining():
            self.cooldown.end()
            self.models.forget()
        if state == "active" and self.limit_rest.was_over_at(read_at):
            self.end_limit_rest()

    def _set_state(self, state: str, reason: str = "", until: float = 0, evidence: Evidence = NO_EVIDENCE) -> None:
        try:
            self._services.set_state(self._pool.name, self._id, state, reason, until, evidence)
            self._cooling_published_at = time.monotonic() if state == "cooling" else float("inf")
        except RedisError as error:
            log.warning("state not published: %s", error, extra=self._log_fields("redis_lost", state))

    def _log_fields(self, action: str, reason: str) -> dict[str, Any]:
        return {"action": action, "credential_id": self._id, "pool": self._pool.name, "reason": reason}


def max_cooldown(outcome: str) -> float:
    """The longest cooldown in seconds without a Retry-After; inf leaves it to FARM_COOLING_LIMIT."""
    return {"rate_limited": MAX_RATE_LIMIT_COOLDOWN_SECONDS, "token_endpoint_down": MAX_TOKEN_COOLDOWN_SECONDS}.get(
        outcome, float("inf")
    )
