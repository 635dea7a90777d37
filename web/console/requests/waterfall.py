"""Where a request's time went, step by step, from its admission to its end. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Milliseconds of a gap between two steps that are no wait of its own: bookkeeping, and rounding.
MIN_WAIT_MS = 5


@dataclass(frozen=True)
class Step:
    """One bar. Times are in milliseconds since the admission."""

    #: `queue`, `wait` for another account, `failed` attempt, until the `first` byte, `reply`.
    kind: str
    begin: int
    end: int
    credential: str = ""
    outcome: str = ""
    #: The upstream's HTTP status, 0 for no response.
    status: int = 0

    @property
    def took(self) -> int:
        return self.end - self.begin


def list_steps(entry: Mapping[str, Any]) -> list[Step]:
    """The steps of an entry of the request log, as the admin API has it.

    Attempts of which an older version has not written when they began are part of one wait, until the last attempt.
    """
    tried: Sequence[Mapping[str, Any]] = entry["tried"]
    begun = entry["queue_ms"]
    failed = [
        Step(
            "failed",
            attempt["started_ms"],
            attempt["started_ms"] + attempt["milliseconds"],
            attempt["credential"],
            attempt["outcome"],
            attempt["status"],
        )
        for attempt in tried
        if attempt["started_ms"] is not None
    ]
    steps: list[Step] = []
    for step in failed:
        add_wait(steps, step.begin)
        steps.append(step)
    has_last = bool(entry["credential"]) and not (failed and failed[-1].begin >= begun)
    if has_last or not steps:
        add_wait(steps, begun)
    if has_last:
        steps += list_last_attempt(entry, max(begun, steps[-1].end if steps else 0))
    return steps


def add_wait(steps: list[Step], until: int) -> None:
    """In the queue first, and later for an account that has not tried the request."""
    since = steps[-1].end if steps else 0
    if not steps or until - since >= MIN_WAIT_MS:
        steps.append(Step("wait" if steps else "queue", since, max(since, until)))


def list_last_attempt(entry: Mapping[str, Any], begun: int) -> list[Step]:
    """The attempt whose response the caller got: until its first byte, and the rest."""
    end, first_ms, credential = max(begun, entry["total_ms"]), entry["first_ms"], entry["credential"]
    first = Step("first", begun, min(end, max(begun, first_ms or end)), credential, status=entry["status"])
    return [first, Step("reply", first.end, end, credential)] if first_ms else [first]
