"""Headers and errors of limits, as OpenAI's."""

import pytest

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage
from web.request import limit_headers

STANDING = LimitUsage(requests=7, requests_reset=59.2, tokens=30, tokens_reset=0.02)


def key(**fields: int) -> ApiKey:
    return ApiKey(id="k", hint="sk-…", created_at=0, **fields)


def test_headers_speak_of_the_limits_that_there_are():
    assert limit_headers.build_headers(key(), STANDING) == {}
    assert limit_headers.build_headers(key(rpm=10), STANDING) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "59.2s",
    }
    assert limit_headers.build_headers(key(tpm=20), STANDING) == {
        "x-ratelimit-limit-tokens": "20",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "20ms",
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.25, "1.25s"), (60, "1m0s"), (61.5, "1m1.5s"), (-1, "0ms")],
)
def test_times_are_written_as_openai_does(seconds: float, words: str):
    assert limit_headers.format_duration(seconds) == words


def test_a_rate_limit_tells_exactly_when_there_is_room():
    error = limit_headers.limit_reached_error(key(rpm=7), LimitReached("requests", 1.2341, STANDING))
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert (error.headers["retry-after"], error.headers["retry-after-ms"]) == ("2", "1235")
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert limit_headers.limit_reached_error(key(tpm=7), LimitReached("tokens", 3, STANDING)).type == "tokens"


def test_requests_at_once_give_a_time_too():
    error = limit_headers.limit_reached_error(key(concurrency=7), LimitReached("concurrency", 0, STANDING))
    assert error.headers["retry-after"] == "1"
    assert "7 requests at once" in error.message


def test_a_quota_is_not_to_be_tried_again():
    error = limit_headers.limit_reached_error(key(quota_tokens=7), LimitReached("quota_tokens", 0, STANDING))
    assert (error.status, error.code) == (429, "insufficient_quota")
    assert error.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.headers
