"""A request reserves an estimate of the tokens that it may use."""

import pytest

from shared.api_keys.limits import estimate_tokens


@pytest.mark.parametrize(
    ("size", "most", "choices", "tokens"), [(1000, None, 1, 1000), (10, None, 1, 69), (1000, 50, 3, 650), (0, 0, 1, 0)]
)
def test_estimate_is_above_the_tokens_that_a_request_uses(size: int, most: int | None, choices: int, tokens: int):
    assert estimate_tokens(size, most, choices) == tokens


def test_media_count_by_their_number():
    assert estimate_tokens(10, None, 1, media=2) == 2069
