"""Turns an upstream's error into the attempt's outcome and an error in OpenAI's shape. No I/O."""

from shared.errors import build_error_body
from shared.parsing import parse_json_object, parse_retry_after
from shared.protocol.messages import Failure
from workers.attempt.outcomes import REFUSED_STATUSES, Failed, UpstreamErrorResponse


def build_failure(attempt_number: int, status: int, code: str, message: str) -> Failure:
    return Failure(status, code, message, "upstream_error", attempt_number)


def classify_error_response(attempt_number: int, status: int, headers: dict[str, str], body: bytes) -> Failed:
    """The outcome for a retryable error of the upstream."""
    outcome = "rate_limited" if status == 429 else "refused" if status in REFUSED_STATUSES else "upstream_error"
    if status == 401:
        return Failed(
            outcome, build_failure(attempt_number, 502, "upstream_auth_failed", "the upstream refused a fresh token")
        )
    failure = build_failure(attempt_number, status, "upstream_error", f"the upstream returned {status}")
    response = UpstreamErrorResponse(
        status, {**headers, "content-type": "application/json"}, to_openai_error(status, body)
    )
    return Failed(outcome, failure, parse_retry_after(headers.get("retry-after")), response)


def classify_invalid_response(attempt_number: int, reason: str) -> Failed:
    """The outcome for a 2xx that is no response and holds no error either."""
    return Failed(
        "no_answer", build_failure(attempt_number, 502, "upstream_no_answer", f"the upstream returned {reason}")
    )


def find_error_status(body: bytes) -> int:
    """The status that an error object has as its `code`, else 502."""
    error = parse_json_object(body).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 502


def to_openai_error(status: int, body: bytes) -> bytes:
    """The upstream's error body if it has OpenAI's shape, else one in that shape."""
    error = parse_json_object(body).get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    return build_error_body(f"the upstream returned {status}", "upstream_error", "upstream_error")
