"""Outcomes of an attempt, and what they mean for its job and its credential. No I/O."""

from dataclasses import dataclass, field, replace

from shared.credentials.evidence import NO_EVIDENCE, TOKEN_ENDPOINT, UPSTREAM, Evidence, clean_code
from shared.credentials.pool_rest import API_KEY_REFUSED, API_KEYS_REFUSED
from shared.errors import InvalidGrant, LeaseLost, TokenEndpointDown, TokenError, TokenRefused
from shared.protocol.messages import Failure
from workers.credentials.token_endpoint.token_response import INVALID_GRANT, TRANSIENT_STATUSES

#: Statuses below 500 for which another credential may do better (I6). Every other 4xx is the caller's fault.
RETRYABLE_STATUSES = frozenset({401, 402, 403, 408, 409, 425, 429})
#: Those of them that a credential which has refused a request will say again: it doesn't get the request a second time.
REFUSED_STATUSES = frozenset({401, 402, 403})
#: Outcome of attempts on an account that has to be paid first: 402, or an error code that says so.
OUT_OF_CREDIT = "out_of_credit"
#: Outcomes after which a credential does not get the same request a second time.
FINAL_OUTCOMES = frozenset({"refused", OUT_OF_CREDIT, API_KEYS_REFUSED})
#: Outcomes of attempts that end because the credential waits for its token endpoint. They don't count: when all access
#: tokens expire at once, a request could meet every credential in that state.
TOKEN_WAITS = frozenset({"token_endpoint_down", "invalid_grant_retry", "invalid_grant_last_retry", "token_in_doubt"})
#: Outcomes of attempts whose API key the upstream refuses.
KEY_REFUSALS = (API_KEY_REFUSED, API_KEYS_REFUSED)


@dataclass(frozen=True)
class Done:
    """The upstream's response was passed on, whatever its status."""

    #: `done`, or why only part of it was passed on (`upstream_eof`, `timeout`, …).
    reason: str = "done"


@dataclass(frozen=True)
class Stopped:
    """The attempt was cancelled because the caller has gone."""

    reason: str = "client_gone"


@dataclass(frozen=True)
class Failed:
    """No byte has reached the caller; another credential may do better."""

    #: Outcome label of `attempts_total`: `rate_limited`, `refused`, `upstream_error`, `unreachable`, `timeout`, …
    outcome: str
    #: What the caller gets if this was the last attempt.
    failure: Failure
    #: Seconds from the upstream's Retry-After; None without one.
    retry_after: float | None = None
    #: The upstream's error response, passed on in place of `failure`.
    response: "UpstreamErrorResponse | None" = None
    #: Whether the credential's refresh token is dead.
    fatal: bool = False
    #: Whether the failure says nothing about the credential (its lease was lost, say), so that it gets no cooldown.
    blameless: bool = False
    #: Seconds for which the upstream may still be working on the request, so that the credential gets no other one.
    rest_seconds: float = 0.0
    #: The error code of the token endpoint; '' for none, and for `invalid_grant`, which the outcome says.
    detail: str = ""
    #: What the upstream or the token endpoint has said.
    evidence: Evidence = NO_EVIDENCE

    @property
    def reason(self) -> str:
        """The reason for the credential's state: the outcome, and `: ` and the detail behind it if there is one."""
        outcome = INVALID_GRANT if self.fatal and self.outcome != API_KEY_REFUSED else self.outcome
        return f"{outcome}: {self.detail}" if self.detail else outcome


@dataclass(frozen=True)
class UpstreamErrorResponse:
    """An error response of the upstream, kept in case no attempt does better."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Outcome = Done | Stopped | Failed


def classify_token_failure(error: Exception, attempt_number: int = 1) -> Failed:
    """The outcome of an attempt without an access token. `error` is one of TOKEN_FAILURES."""
    code = error.code if isinstance(error, TokenError) else ""
    message = "no access token could be obtained for a credential"
    failure = Failure(502, "upstream_login_failed", message, "upstream_error", attempt_number)
    if code in KEY_REFUSALS:
        message = "the upstream refuses the API key of a credential"
        failure = Failure(502, "upstream_auth_failed", message, "upstream_error", attempt_number)
    return Failed(
        label_token_failure(error),
        failure,
        retry_after=getattr(error, "retry_after", None),
        detail="" if code in (INVALID_GRANT, *KEY_REFUSALS) else code,
        fatal=isinstance(error, InvalidGrant),
        blameless=isinstance(error, LeaseLost),
        evidence=find_token_evidence(error, code),
    )


def find_token_evidence(error: Exception, code: str) -> Evidence:
    """What the token endpoint has said, or to an API key the upstream: that with 401, since it has no endpoint."""
    if code in KEY_REFUSALS:
        return Evidence(UPSTREAM, 401)
    if not isinstance(error, TokenError):
        return NO_EVIDENCE
    # A TokenRefused waits as long as the farm wants, whatever the endpoint has said.
    retry_after = error.retry_after if error.status in TRANSIENT_STATUSES or error.status >= 500 else None
    return Evidence(TOKEN_ENDPOINT, error.status, clean_code(code), retry_after)


def label_token_failure(error: Exception) -> str:
    """The outcome label, which for a refused refresh token says what happens when the cooldown ends."""
    if isinstance(error, (TokenRefused, InvalidGrant)) and error.code in KEY_REFUSALS:
        return error.code
    if isinstance(error, TokenRefused) and error.is_in_doubt:
        return "token_in_doubt"
    if isinstance(error, TokenRefused):
        return "invalid_grant_last_retry" if error.is_last else "invalid_grant_retry"
    return "token_endpoint_down" if isinstance(error, TokenEndpointDown) else "no_token"


def reject_login(failed: Failed, attempt_number: int) -> Failed:
    """The failure of a private credential: there is no other one to try, so the caller has to log in again."""
    message = "the upstream refuses this refresh token"
    failure = Failure(401, "invalid_refresh_token", message, "invalid_request_error", attempt_number)
    return replace(failed, failure=failure)


def is_retryable(status: int) -> bool:
    """Whether a response of that status is retried on another credential."""
    return status >= 500 or status in RETRYABLE_STATUSES
