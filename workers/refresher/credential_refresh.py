"""One refresh of one credential: presents its refresh token, judges a refusal, stores a grant before its use (I4)."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from gevent.lock import BoundedSemaphore
from redis.exceptions import RedisError

from shared import clock, names
from shared.credentials.sealing import fingerprint
from shared.errors import (
    BreakerOpen,
    InvalidGrant,
    LeaseLost,
    RefreshPending,
    TokenEndpointDown,
    TokenError,
    TokenRefused,
)
from shared.observability.counters import Counters
from shared.redis_connection.retry import retry_forever
from workers.credentials.leases import Lease
from workers.credentials.refresh_request import RefreshRequest
from workers.credentials.refusals import Refusals
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_endpoint.token_response import INVALID_GRANT, TokenGrant
from workers.credentials.token_store import TokenStore
from workers.refresher.refresh_lock import RefreshLock

log = logging.getLogger("farm.tokens")
T = TypeVar("T", bound=TokenError)
#: Seconds for which this process may have been frozen after it has taken the lock, and still present the token.
MAX_FROZEN_SECONDS = 5.0


@dataclass(frozen=True, repr=False)
class Exchange:
    """A grant, and the refresh tokens that it concerns. It has no repr, because it consists of secrets."""

    grant: TokenGrant
    #: The one that is stored as the current.
    current_token: str
    #: The one that was exchanged: the current or the superseded one.
    exchanged_token: str
    #: When the token endpoint's answer came, by the monotonic clock.
    answered_at: float


@dataclass(frozen=True)
class RefresherServices:
    """What the refreshes of a process share."""

    store: TokenStore
    lock: RefreshLock
    #: Configured pool -> its token endpoint, and the endpoint's breaker.
    endpoints: Mapping[str, TokenEndpoint]
    breakers: Mapping[str, TokenBreaker]
    counters: Counters
    #: Limits concurrent calls of token endpoints.
    limit: BoundedSemaphore
    #: Seconds for which a refused refresh token is presented again (FARM_REFUSAL_PATIENCE).
    patience: float
    #: Finds out whose account a lease's credential is, given the grant and the refresh token that is stored by then.
    #: Raises LeaseLost if another credential has the account.
    learn_account: Callable[[Lease, TokenGrant, str], None] = lambda *_: None


class CredentialRefresh:
    """A refresh that a worker has asked for."""

    def __init__(self, request: RefreshRequest, services: RefresherServices) -> None:
        self._request = request
        self._services = services
        self._store = services.store
        pool = names.configured_pool(request.pool)
        self._endpoint = services.endpoints[pool]
        self._breaker = services.breakers[pool]
        #: Whether an earlier refresh has ended without an answer, so that the token may have been rotated.
        self._is_in_doubt = False

    def run(self) -> None:
        """1. Presents the refresh token. 2. Stores the grant. Raises what `Refresher.refresh` may raise."""
        refresh_token, _, _ = self._store.load(self._request.credential_id)
        exchange = self._exchange(refresh_token)
        try:
            retry_forever(lambda: self._store_grant(exchange), "a rotated token waits to be stored")
        except Exception:
            # It holds the credential no more, or another token has been stored: the answer is of no use.
            self._end(is_in_doubt=False)
            raise
        if exchange.grant.unusable:
            raise TokenEndpointDown(exchange.grant.unusable, "unusable_access_token")
        self._record_grant()
        stored_token = exchange.grant.refresh_token or exchange.exchanged_token
        self._services.learn_account(self._request.lease, exchange.grant, stored_token)

    def _store_grant(self, exchange: Exchange) -> None:
        def observe(metric: str) -> None:
            self._services.counters.observe(metric, time.monotonic() - exchange.answered_at)

        self._store.store(
            self._request.lease,
            exchange.current_token,
            exchange.grant,
            exchange.exchanged_token,
            on_stored=lambda: observe("token_store_seconds"),
        )
        observe("token_durable_seconds")

    def _exchange(self, refresh_token: str) -> Exchange:
        """Presents the current refresh token; the superseded one only when the current one was refused many times.

        If another process has stored a newer token meanwhile, presents that at once.
        """
        refusals = self._store.load_refusals(self._request.credential_id)
        if refusals.token != fingerprint(refresh_token):
            refusals = Refusals()
        is_exempt = self._request.is_forced and not self._is_unproven_private()
        pause = refusals.pause(clock.now(), self._services.patience)
        if pause and not is_exempt:
            raise build_refused(refusals, pause)
        current_token = presented = refresh_token
        if refusals.is_last and not pause and not self._breaker.is_open:
            presented = self._store.load_previous(self._request.credential_id) or current_token
        while True:
            try:
                grant = self._call_endpoint(current_token, presented, is_exempt=is_exempt)
                return Exchange(grant, current_token, presented, time.monotonic())
            except InvalidGrant as error:
                stored = self._store.load(self._request.credential_id)[0]
                if stored == current_token:
                    raise self._judge_refusal(current_token, refusals, error) from None
                current_token, presented, refusals = stored, stored, Refusals()

    def _judge_refusal(self, refresh_token: str, refusals: Refusals, refusal: InvalidGrant) -> TokenError:
        """What a refusal means: the credential is dead, the token is presented again, or the endpoint is at fault.

        That others are granted tokens is no evidence against a credential in doubt: it gets the whole patience.
        """
        code = refusal.code
        if self._is_unproven_private():
            return with_status(InvalidGrant("the token endpoint refuses this refresh token", code), refusal.status)
        history = self._breaker.record_failure(
            self._request.credential_id, "invalid_grant", refusals.refused_at, is_probe=self._request.is_probe
        )
        if history.is_open:
            return self._endpoint_down()
        if pause := refusals.pause(history.now, self._services.patience):
            return build_refused(refusals, pause)
        granted_at = 0.0 if self._is_in_doubt else history.granted_at
        next_refusals = refusals.add(
            fingerprint(refresh_token), history.now, self._services.patience, granted_at, code, refusal.status
        )
        if next_refusals is not None:
            next_refusals = replace(next_refusals, is_in_doubt=self._is_in_doubt)
        self._store.store_refusals(self._request.lease, next_refusals)
        if next_refusals is None:
            message = f"the token endpoint returned {code} {refusals.count + 1} times"
            return with_status(InvalidGrant(message, code), refusal.status)
        refused = build_refused(next_refusals, next_refusals.pause(history.now, self._services.patience))
        log.warning("%s", refused, extra=self._log_fields("token_refused"))
        return refused

    def _endpoint_down(self) -> TokenEndpointDown:
        pause = self._breaker.retry_after(self._request.worker_count)
        return TokenEndpointDown("the token endpoint fails for several credentials and is being probed", "", pause)

    def _is_unproven_private(self) -> bool:
        """Whether a caller has just presented the token: it may be anything, and proves nothing about the endpoint."""
        return names.is_private(self._request.pool) and not self._store.is_proven(self._request.credential_id)

    def _call_endpoint(self, current_token: str, presented_token: str, *, is_exempt: bool) -> TokenGrant:
        """Raises TokenEndpointDown while the breaker is open, unless the call is exempt from it."""
        try:
            with self._services.limit:
                if self._breaker.is_open and not is_exempt:
                    raise BreakerOpen("the token endpoint is being probed")
                self._begin(current_token, presented_token)
                grant = self._endpoint.refresh(presented_token)
        except BreakerOpen:
            raise self._endpoint_down() from None
        except TokenError as error:
            self._record_failure(error)
            raise
        except (RefreshPending, LeaseLost, RedisError):
            # The token was not presented.
            self._end(is_in_doubt=False)
            raise
        except Exception:
            self._end(is_in_doubt=True)
            raise
        self._services.counters.increment("token_refreshes", "ok")
        log.debug("access token refreshed", extra=self._log_fields("token_refreshed"))
        return grant

    def _begin(self, current_token: str, presented_token: str) -> None:
        """Takes the lock. Raises RefreshPending when the lease may not be relied on for as long as that took."""
        started_at = clock.lease_time()
        self._is_in_doubt, is_new = self._services.lock.begin(self._request, current_token, presented_token)
        if is_new:
            self._report_doubt("refresher_lost")
        now = clock.lease_time()
        if now > self._request.lease_valid_until or now > started_at + MAX_FROZEN_SECONDS:
            raise RefreshPending("the lease has to be renewed before the refresh")

    def _record_failure(self, error: TokenError) -> None:
        outcome = label_refresh_outcome(error)
        self._services.counters.increment("token_refreshes", outcome)
        log.warning("no access token: %s", error, extra=self._log_fields("token_refused"))
        self._end(is_in_doubt=getattr(error, "is_outcome_unknown", False))
        if not isinstance(error, InvalidGrant) and not self._is_unproven_private():
            self._breaker.record_failure(self._request.credential_id, outcome, is_probe=self._request.is_probe)

    def _end(self, *, is_in_doubt: bool) -> None:
        """Gives the lock back; if Redis is away it is abandoned later."""
        with suppress(RedisError):
            if self._services.lock.end(self._request.credential_id, is_in_doubt=is_in_doubt):
                self._report_doubt("no_answer")

    def _report_doubt(self, reason: str) -> None:
        self._services.counters.increment("tokens_in_doubt", reason)
        message = "a refresh has ended without an answer: the token may have been rotated, and is presented again"
        log.warning(message, extra={**self._log_fields("token_in_doubt"), "reason": reason})

    def _record_grant(self) -> None:
        try:
            self._breaker.record_grant()
        except RedisError as error:
            log.warning("token breaker not updated: %s", error, extra=self._log_fields("redis_lost"))

    def _log_fields(self, action: str) -> dict[str, str]:
        return {"action": action, "pool": self._request.pool, "credential_id": self._request.credential_id}


def build_refused(refusals: Refusals, pause: float) -> TokenRefused:
    """The error that says what happens next; `pause` is in seconds."""
    presented = "the superseded token is presented, the last try" if refusals.is_last else "it is presented again"
    code = refusals.code or INVALID_GRANT
    message = f"the token endpoint has refused the refresh token ({code}, {refusals.count}): {presented}"
    refused = TokenRefused(
        f"{message} in {pause:.0f} s", pause, is_last=refusals.is_last, code=code, is_in_doubt=refusals.is_in_doubt
    )
    return with_status(refused, refusals.status)


def with_status(error: T, status: int) -> T:
    """The error, with the HTTP status of the response that it stands for."""
    error.status = status
    return error


def label_refresh_outcome(error: Exception) -> str:
    """The outcome label of a failed refresh."""
    if isinstance(error, InvalidGrant):
        return "invalid_grant"
    return "refused" if type(error) is TokenError else "unavailable"
