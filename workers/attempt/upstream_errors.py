"""Turns an upstream's error into the attempt's outcome and an error in OpenAI's shape. No I/O."""

from collections.abc import Mapping
from dataclasses import replace

from shared.credentials.evidence import NO_EVIDENCE, UPSTREAM, Evidence, clean_code
from shared.parsing import parse_retry_after
from shared.protocol.messages import Failure
from shared.response.error_shapes import UNNAMED_ERROR, read_error, to_openai_error
from workers.attempt.outcomes import OUT_OF_CREDIT, REFUSED_STATUSES, Failed, UpstreamErrorResponse, is_retryable


def build_failure(attempt_number: int, status: int, code: str, message: str) -> Failure:
    return Failure(status, code, message, "upstream_error", attempt_number)


def classify_error_response(
    attempt_number: int, status: int, headers: dict[str, str], body: bytes, exhausted_seconds: float = 0.0
) -> Failed:
    """The outcome for an error response of the upstream that is retried.

    `exhausted_seconds`: until the rate limit is reset of which the account has nothing left, in place of a Retry-After.
    """
    if status == 401:
        return Failed(
            "refused", build_failure(attempt_number, 502, "upstream_auth_failed", "the upstream refused a fresh token")
        )
    status = status if status < 600 else 502
    failure = build_failure(attempt_number, status, "upstream_error", f"the upstream returned {status}")
    response = UpstreamErrorResponse(
        status, {**headers, "content-type": "application/json"}, to_openai_error(status, body)
    )
    retry_after = find_retry_after(headers)
    if status == 429 and retry_after is None:
        retry_after = exhausted_seconds or None
    return Failed(label_error(status, body), failure, retry_after, response)


def find_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, by Retry-After or by OpenAI's `retry-after-ms`; None without either."""
    milliseconds = parse_retry_after(headers.get("retry-after-ms"))
    return parse_retry_after(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000


def find_evidence(failed: Failed, status: int) -> Evidence:
    """What the upstream has said; `status` is that of its latest response, 0 for none.

    An error in disguise counts with the status that it names. Without a response our own code says what happened.
    """
    if failed.blameless:
        return NO_EVIDENCE
    if failed.response is None:
        code = "" if failed.failure.code == "upstream_auth_failed" else failed.failure.code
        return Evidence(UPSTREAM, status, code)
    error = read_error(failed.response.body)
    codes = (clean_code(name) for name in (error.code, error.type) if name != UNNAMED_ERROR)
    code = next(filter(None, codes), "")
    return Evidence(UPSTREAM, failed.response.status, code, failed.retry_after)


def label_error(status: int, body: bytes) -> str:
    """The outcome label of an error response."""
    if status == 402 or read_error(body).is_unpaid:
        return OUT_OF_CREDIT
    return "rate_limited" if status == 429 else "refused" if status in REFUSED_STATUSES else "upstream_error"


def classify_disguised_error(attempt_number: int, headers: dict[str, str], body: bytes) -> Failed:
    """The outcome for an error with a status below 300: its own status is in its body, else it counts as a 502.

    A 4xx that would be the caller's is evidence against the upstream as long as only one credential says so.
    """
    status = read_error(body).status or 502
    failed = classify_error_response(attempt_number, status, headers, body)
    is_callers = failed.outcome == "upstream_error" and not is_retryable(status)
    return replace(failed, outcome="refused") if is_callers else failed


def classify_invalid_response(attempt_number: int, reason: str) -> Failed:
    """The outcome for a 2xx that is no response and holds no error either."""
    return Failed(
        "no_answer", build_failure(attempt_number, 502, "upstream_no_answer", f"the upstream returned {reason}")
    )
