"""Headers of rate limits tell how long an account has nothing left."""

import pytest

from workers.upstream.allowance import find_exhausted_seconds, find_limit_names, parse_reset

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("1h30m0.5s", 5400.5),
        ("120ms", 0.12),
        ("1d", 86_400),
        ("17", 17),
        ("0.25", 0.25),
        ("1800000030", 30),
        ("1800000030000", 30),
        ("2027-01-15T08:00:42Z", 42),
        ("2027-01-15T10:00:42+02:00", 42),
        ("2027-01-15T08:00:42", 42),
        ("Fri, 15 Jan 2027 08:00:42 GMT", 42),
    ],
)
def test_reset_is_read_in_every_form_that_upstreams_use(value: str, seconds: float):
    assert parse_reset(value, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "soon", "-5", "nan", "inf", "5x", "1700000000", "2020-01-01T00:00:00Z", "1e999"])
def test_reset_that_has_passed_or_is_not_understood_is_ignored(value: str):
    assert parse_reset(value, NOW) == 0


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [
        ("X-RateLimit-Remaining-Requests", "X-RateLimit-Reset-Requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day"),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
        ("ratelimit-remaining", "ratelimit-reset"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ],
)
def test_account_with_nothing_left_is_exhausted_until_the_reset(remaining: str, reset: str):
    assert find_exhausted_seconds({remaining: "0", reset: "20s"}, NOW) == 20
    assert find_exhausted_seconds({remaining: "1", reset: "20s"}, NOW) == 0
    assert find_exhausted_seconds({remaining: "0"}, NOW) == 0
    assert find_exhausted_seconds({remaining: "none", reset: "20s"}, NOW) == 0


def test_headers_that_tell_when_to_go_on_are_found():
    names = ["content-type", "x-ratelimit-reset-requests", "retry-after", "retry-after-ms", "ratelimit-remaining"]
    assert find_limit_names(names) == names[1:]


def test_latest_reset_of_those_used_up_counts():
    headers = {
        "content-type": "application/json",
        "x-ratelimit-limit-requests": "0",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "-3",
        "x-ratelimit-reset-tokens": "9s",
        "x-ratelimit-remaining-images": "5",
        "x-ratelimit-reset-images": "1h",
    }
    assert find_exhausted_seconds(headers, NOW) == 9
