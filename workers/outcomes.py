"""How an attempt can end, and what that means for its job and its credential; pure."""

from dataclasses import dataclass, field

from shared.messages import Failure

#: Statuses of an upstream that another credential may answer better (I6). Every other 4xx is the caller's.
RETRIED_STATUSES = frozenset({401, 403, 408, 409, 425, 429})


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

    #: Outcome label of `attempts_total`: `rate_limited`, `upstream_error`, `unreachable`, `timeout`, `no_token`, …
    outcome: str
    #: What the caller gets when this was the last attempt.
    failure: Failure
    #: Seconds the upstream asked to wait, if it did.
    retry_after: float | None = None
    #: The upstream's own answer, passed on when this was the last attempt.
    answer: "UpstreamError | None" = None
    #: The credential's refresh token is dead.
    fatal: bool = False
    #: The fault says nothing about the credential (its lease was lost), which is left alone.
    blameless: bool = False


@dataclass(frozen=True)
class UpstreamError:
    """An error answer of the upstream, kept in case it is the last."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Outcome = Done | Stopped | Failed


def is_retried(status: int) -> bool:
    """Whether an answer of that status is tried again on another credential."""
    return status >= 500 or status in RETRIED_STATUSES
