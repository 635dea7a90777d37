"""Whose fault a failed attempt is: the request's, the credential's or the upstream's. No I/O.

One failure rarely tells. What several credentials refuse alike is the request's fault, if they are credible: a
credential that also failed its previous request may itself be at fault. What fails on one credential and is
served by another is the first one's fault. What fails everywhere, for everybody, is the upstream's, which the circuit
breaker finds out.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared import clock
from shared.parsing import parse_json_object
from workers.attempt.outcomes import OUT_OF_CREDIT, Failed

#: Credentials that must refuse a request alike before it is the culprit: for statuses below 500; for 429; for a 429
#: that names a time to wait (most are true limits of an account); for failures that mostly are the upstream's.
REFUSALS_TO_BLAME = 2
RATE_LIMITS_TO_BLAME = 3
TIMED_RATE_LIMITS_TO_BLAME = 5
#: The same for accounts that are out of credit, which is hardly ever a request's fault.
UNPAID_TO_BLAME = 5
FAULTS_TO_BLAME = 4


@dataclass(frozen=True)
class TriedCredential:
    """A failed attempt as the next credential learns of it."""

    credential_id: str
    signature: str
    #: Whether the credential had served its previous request, so that this failure is evidence against the request.
    is_credible: bool
    #: When the attempt started a cooldown, seconds since the epoch; 0 if it did not.
    paused_at: float = 0.0
    #: For the request log: the outcome, the upstream's HTTP status (0 for no response), how many milliseconds it took,
    #: and how many after the request's admission it started.
    outcome: str = ""
    status: int = 0
    milliseconds: int = 0
    started_ms: int = 0

    def encode(self) -> str:
        """Its entry in the job's `farm_tried` (retries.lua finds the credential in it)."""
        evidence = f"{self.credential_id}:{self.signature}:{int(self.is_credible)}:{self.paused_at:.1f}"
        return f" {evidence}:{self.outcome}:{self.status}:{self.milliseconds}:{self.started_ms}"


def decode_tried(text: str) -> list[TriedCredential]:
    """The attempts in a job's `farm_tried`; entries of another form are left out."""
    entries = (entry.split(":") for entry in text.split())
    return [
        TriedCredential(entry[0], entry[1], entry[2] == "1", float(entry[3] or 0), *decode_outcome(entry[4:]))
        for entry in entries
        if len(entry) > 3
    ]


def decode_outcome(fields: Sequence[str]) -> tuple[str, int, int, int]:
    """Outcome, status, milliseconds, start; an attempt that an older version or no worker has recorded lacks some."""
    numbers = [int(field) if field.isdecimal() else 0 for field in fields[1:4]]
    if len(numbers) < 2:
        return "", 0, 0, 0
    return fields[0], numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0


def summarize_tried(attempts: Iterable[TriedCredential]) -> str:
    """Failed attempts as the request log keeps them (`FailedAttempt` of shared/observability/request_log.py)."""
    return " ".join(f"{a.credential_id}:{a.outcome}:{a.status}:{a.milliseconds}:{a.started_ms}" for a in attempts)


def describe_failure(failed: Failed) -> str:
    """A short signature, the same for failures that are alike: by outcome, status and error code, never by the text."""
    error = parse_json_object(failed.response.body).get("error") if failed.response else None
    fields = error if isinstance(error, dict) else {}
    parts = (failed.outcome, failed.failure.status, failed.failure.code, *map(fields.get, ("code", "type", "param")))
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def refusals_to_blame(failed: Failed) -> int:
    """How many credentials must fail like this before the request is the culprit."""
    if failed.outcome == "rate_limited":
        return RATE_LIMITS_TO_BLAME if failed.retry_after is None else TIMED_RATE_LIMITS_TO_BLAME
    if failed.outcome == OUT_OF_CREDIT:
        return UNPAID_TO_BLAME
    status = failed.response.status if failed.response else 0
    return REFUSALS_TO_BLAME if failed.outcome == "refused" or 400 <= status < 500 else FAULTS_TO_BLAME


def is_culprit(attempts: Iterable[TriedCredential], failed: Failed) -> bool:
    """Whether the request is at fault, given all its attempts; `failed` is the latest one's outcome."""
    signature = describe_failure(failed)
    witnesses = {
        attempt.credential_id for attempt in attempts if attempt.is_credible and attempt.signature == signature
    }
    return len(witnesses) >= refusals_to_blame(failed)


def sum_pauses(attempts: Iterable[TriedCredential], limit: float) -> float:
    """Seconds for which credentials have paused because of the request, each `limit` at most."""
    now = clock.now()
    return sum(min(limit, max(0.0, now - attempt.paused_at)) for attempt in attempts if attempt.paused_at)
