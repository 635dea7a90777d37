"""What an account has left is read from the headers of every vendor whose resets are understood."""

import pytest

from shared.credentials.activity.allowance import Allowance, Left
from workers.upstream.allowance import find_left

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1m0s",
                "x-ratelimit-remaining-tokens": "1000",
            },
            (Left("requests", 59, 60, NOW + 60), Left("tokens", 1000)),
        ),
        (
            {
                "anthropic-ratelimit-input-tokens-limit": "50000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:01:00Z",
            },
            (Left("input-tokens", 0, 50_000, NOW + 60),),
        ),
        ({"RateLimit-Remaining": "3", "RateLimit-Reset": "10"}, (Left("requests", 3, None, NOW + 10),)),
        ({"x-ratelimit-remaining-requests-day": "12.0"}, (Left("requests-day", 12),)),
        ({"x-ratelimit-remaining-requests": "many", "retry-after": "3"}, ()),
        ({"x-ratelimit-remaining-requests": "-1"}, (Left("requests", 0),)),
        ({"x-ratelimit-remaining-requests": "nan"}, ()),
        ({}, ()),
    ],
)
def test_limits_are_read(headers: dict[str, str], left: tuple[Left, ...]):
    assert find_left(headers, NOW) == left


def test_number_and_names_of_limits_are_bounded():
    found = find_left({f"x-ratelimit-remaining-{number}{'x' * 99}": "1" for number in range(99)}, NOW)
    assert len(found) == 8
    assert max(len(left.name) for left in found) == 40


def test_allowance_survives_its_form_in_redis():
    allowance = Allowance(NOW, (Left("requests", 59, 60, NOW + 60), Left("tokens", 1000)))
    assert Allowance.decode(allowance.encode()) == allowance


@pytest.mark.parametrize("stored", ["", "{}", '{"at": 1, "left": [{"x": 1}]}', '{"at": "x", "left": []}'])
def test_allowance_of_another_form_is_none(stored: str):
    assert Allowance.decode(stored) is None
