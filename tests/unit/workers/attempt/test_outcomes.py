import pytest

from workers.attempt.outcomes import is_retryable


@pytest.mark.parametrize("status", [401, 403, 408, 409, 429, 500, 502, 503, 529])
def test_what_another_credential_may_answer_better_is_retried(status: int):
    assert is_retryable(status)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 413, 415, 422])
def test_what_is_the_callers_is_not(status: int):
    assert not is_retryable(status)
