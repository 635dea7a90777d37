"""Attempts are retried on another credential by the status of the response."""

import pytest

from workers.attempt.outcomes import is_retryable


@pytest.mark.parametrize("status", [401, 403, 408, 409, 429, 500, 502, 503, 529])
def test_statuses_that_another_credential_may_avoid_are_retryable(status: int):
    assert is_retryable(status)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 413, 415, 422])
def test_successes_and_callers_errors_are_not_retryable(status: int):
    assert not is_retryable(status)
