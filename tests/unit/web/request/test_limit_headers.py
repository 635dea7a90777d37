"""Limits are reported in OpenAI's headers and errors."""

import pytest

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage
from web.request import limit_headers

USAGE = LimitUsage(requests=7, requests_reset=59.2, tokens=30, tokens_reset=0.02)


def build_key(**fields: int) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **fields)


def test_headers_cover_only_the_limits_of_the_key():
    assert limit_headers.build_headers(build_key(), USAGE) == {}
    assert limit_headers.build_headers(build_key(rpm=10), USAGE) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "59.2s",
    }
    assert limit_headers.build_headers(build_key(tpm=20), USAGE) == {
        "x-ratelimit-limit-tokens": "20",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "20ms",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.25, "1.25s"), (60, "1m0s"), (61.5, "1m1.5s"), (-1, "0ms")],
)
def test_durations_are_formatted_as_openai_does(seconds: float, text: str):
    assert limit_headers.format_duration(seconds) == text


def test_rate_limit_error_says_when_to_retry():
    error = limit_headers.limit_reached_error(build_key(rpm=7), LimitReached("requests", 1.2341, USAGE))
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert (error.headers["retry-after"], error.headers["retry-after-ms"]) == ("2", "1235")
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert limit_headers.limit_reached_error(build_key(tpm=7), LimitReached("tokens", 3, USAGE)).type == "tokens"


def test_concurrency_error_says_when_to_retry():
    error = limit_headers.limit_reached_error(build_key(concurrency=7), LimitReached("concurrency", 0, USAGE))
    assert error.headers["retry-after"] == "1"
    assert "7 requests at once" in error.message


def test_quota_error_says_not_to_retry():
    error = limit_headers.limit_reached_error(build_key(quota_tokens=7), LimitReached("quota_tokens", 0, USAGE))
    assert (error.status, error.code) == (429, "insufficient_quota")
    assert error.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.headers


def test_a_quota_that_is_only_reserved_is_a_short_wait():
    error = limit_headers.limit_reached_error(build_key(quota_tokens=7), LimitReached("reserved", 2, USAGE))
    assert (error.status, error.code, error.headers["retry-after"]) == (429, "rate_limit_exceeded", "2")
    assert "x-should-retry" not in error.headers
