"""What several credible credentials refuse alike is the request's fault."""

import pytest

from workers.attempt.blame import (
    FAULTS_TO_BLAME,
    RATE_LIMITS_TO_BLAME,
    REFUSALS_TO_BLAME,
    TIMED_RATE_LIMITS_TO_BLAME,
    TriedCredential,
    decode_tried,
    describe_failure,
    is_culprit,
)
from workers.attempt.outcomes import Failed
from workers.attempt.upstream_errors import classify_error_response


def refuse(status: int, code: str = "c", message: str = "no", **headers: str) -> Failed:
    body = f'{{"error": {{"message": "{message}", "type": "t", "code": "{code}"}}}}'.encode()
    return classify_error_response(1, status, dict(headers), body)


def witnesses(failed: Failed, count: int, *, is_credible: bool = True) -> list[TriedCredential]:
    return [TriedCredential(f"c{i}", describe_failure(failed), is_credible) for i in range(count)]


@pytest.mark.parametrize(
    ("failed", "needed"),
    [
        (refuse(403), REFUSALS_TO_BLAME),
        (refuse(409), REFUSALS_TO_BLAME),
        (refuse(429), RATE_LIMITS_TO_BLAME),
        (refuse(429, **{"retry-after": "9"}), TIMED_RATE_LIMITS_TO_BLAME),
        (refuse(500), FAULTS_TO_BLAME),
    ],
)
def test_request_is_blamed_after_enough_alike_failures(failed: Failed, needed: int):
    assert not is_culprit(witnesses(failed, needed - 1), failed)
    assert is_culprit(witnesses(failed, needed), failed)


def test_repeated_failures_on_one_credential_are_one_witness():
    failed = refuse(403)
    assert not is_culprit(witnesses(failed, 1) * 5, failed)


def test_credentials_that_are_not_credible_are_no_witnesses():
    failed = refuse(403)
    assert not is_culprit(witnesses(failed, 9, is_credible=False), failed)


def test_different_failures_blame_nobody():
    failed = refuse(403)
    attempts = [*witnesses(refuse(403, code="other"), 1), *witnesses(refuse(429), 2)[1:], *witnesses(failed, 3)[2:]]
    assert not is_culprit(attempts, failed)


def test_text_of_an_error_makes_no_difference():
    assert describe_failure(refuse(403, message="a")) == describe_failure(refuse(403, message="b"))


def test_attempts_survive_the_job_record():
    attempts = [
        TriedCredential("c1", "0a1b2c3d", True, 12.5),
        TriedCredential("c2", "ffffffff", False, 0.0, "timeout", 504, 1200, 35),
    ]
    assert decode_tried("".join(attempt.encode() for attempt in attempts)) == attempts


def test_attempt_of_an_older_version_has_no_start():
    (attempt,) = decode_tried(" c2:ffffffff:0:0.0:timeout:504:1200")
    assert attempt == TriedCredential("c2", "ffffffff", False, 0.0, "timeout", 504, 1200)


@pytest.mark.parametrize("text", ["", " ", " c1", " c1:x"])
def test_unreadable_attempts_are_left_out(text: str):
    assert decode_tried(text) == []
