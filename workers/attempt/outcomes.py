"""How an attempt can end, and what that means for its job and its credential; pure."""

from dataclasses import dataclass, field, replace

from shared.errors import InvalidGrant, LeaseLost, TokenEndpointDown
from shared.protocol.messages import Failure

#: Statuses of an upstream that another credential may answer better (I6). Every other 4xx is the caller's.
RETRYABLE_STATUSES = frozenset({401, 403, 408, 409, 425, 429})


@dataclass(frozen=True)
class Done:
    """The upstream's answer reached the reply channel, whatever its status."""

    #: Why the answer ended: `done`, or an end that was not whole (`upstream_eof`, `timeout`, …).
    reason: str = "done"


@dataclass(frozen=True)
class Stopped:
    """Nobody waits for the answer any more."""

    reason: str = "client_gone"


@dataclass(frozen=True)
class Failed:
    """No byte reached the caller; another credential may do better."""

    #: Outcome label of `attempts_total`: `rate_limited`, `refused`, `upstream_error`, `unreachable`, `timeout`, …
    outcome: str
    #: What the caller gets when this was the last attempt.
    failure: Failure
    #: Seconds the upstream asked to wait, if it did.
    retry_after: float | None = None
    #: The upstream's own answer, passed on when this was the last attempt.
    response: "UpstreamErrorResponse | None" = None
    #: The credential's refresh token is dead.
    fatal: bool = False
    #: The fault says nothing about the credential (its lease was lost), which is left alone.
    blameless: bool = False


@dataclass(frozen=True)
class UpstreamErrorResponse:
    """An error answer of the upstream, kept in case it is the last."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Outcome = Done | Stopped | Failed


def classify_token_failure(error: Exception, attempt_number: int = 1) -> Failed:
    """No access token could be had in that attempt, because of a TokenError, a lost lease or a wrong secret key."""
    failure = Failure(
        502, "upstream_login_failed", "no access token could be had for an account", "upstream_error", attempt_number
    )
    return Failed(
        "token_endpoint_down" if isinstance(error, TokenEndpointDown) else "no_token",
        failure,
        retry_after=getattr(error, "retry_after", None),
        fatal=isinstance(error, InvalidGrant),
        blameless=isinstance(error, LeaseLost),
    )


def reject_login(failed: Failed, attempt_number: int) -> Failed:
    """The same, when the account is the caller's own: there is no other, and the caller has to log in again."""
    failure = Failure(
        401, "invalid_refresh_token", "the upstream refuses this refresh token", "invalid_request_error", attempt_number
    )
    return replace(failed, failure=failure)


def is_retryable(status: int) -> bool:
    """Whether an answer of that status is tried again on another credential."""
    return status >= 500 or status in RETRYABLE_STATUSES
