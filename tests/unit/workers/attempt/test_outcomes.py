"""Attempts are retried on another credential by the status of the response."""

import pytest

from workers.attempt.outcomes import is_retryable
from workers.attempt.upstream_errors import classify_disguised_error, classify_error_response


@pytest.mark.parametrize("status", [401, 402, 403, 408, 409, 429, 500, 502, 503, 529])
def test_statuses_that_another_credential_may_avoid_are_retryable(status: int):
    assert is_retryable(status)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 413, 415, 422])
def test_successes_and_callers_errors_are_not_retryable(status: int):
    assert not is_retryable(status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "3"}, 3.0), ({"retry-after": "3", "retry-after-ms": "1500"}, 1.5)],
)
def test_time_to_wait_is_taken_from_either_header(headers: dict[str, str], seconds: float | None):
    assert classify_error_response(1, 429, headers, b"{}").retry_after == seconds


def test_reset_of_a_rate_limit_stands_in_for_a_missing_retry_after_of_a_429():
    assert classify_error_response(1, 429, {}, b"{}", 20.0).retry_after == 20
    assert classify_error_response(1, 429, {"retry-after": "3"}, b"{}", 20.0).retry_after == 3
    assert classify_error_response(1, 500, {}, b"{}", 20.0).retry_after is None


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (402, "x", "out_of_credit"),
        (429, "x", "rate_limited"),
        (429, "insufficient_quota", "out_of_credit"),
        (403, "billing_not_active", "out_of_credit"),
        (403, "x", "refused"),
        (500, "x", "upstream_error"),
    ],
)
def test_outcome_of_an_error_is_told_by_status_and_code(status: int, code: str, outcome: str):
    body = b'{"error": {"message": "no", "code": "%b"}}' % code.encode()
    assert classify_error_response(1, status, {}, body).outcome == outcome


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("400", 400, "refused"),
        ("429", 429, "rate_limited"),
        ("503", 503, "upstream_error"),
        ("7", 502, "upstream_error"),
    ],
)
def test_error_in_disguise_has_the_status_of_its_code(code: str, status: int, outcome: str):
    failed = classify_disguised_error(1, {}, b'{"code": "%b", "message": "no"}' % code.encode())
    assert failed.response is not None
    assert (failed.response.status, failed.outcome) == (status, outcome)
