"""What an upstream says about waiting is read in any form, and never breaks a request."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.parsing import parse_retry_after, parse_whole_number

DATE_PARTS = st.sampled_from(
    ["Mon,", "01", "Jan", "2030", "00:00:00", "GMT", "-0000", "9" * 20, "+" + "9" * 20, "0001", ":"]
)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5),
        (" 1.5 ", 1.5),
        ("5, 30", 5),
        ("5s", 5),
        ("-3", 0),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999", None),
    ],
)
def test_pause_is_read_or_none(header: str, seconds: float | None):
    assert parse_retry_after(header) == seconds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("100", 100),
        ("007", 7),
        ("4", None),
        ("101", None),
        ("", None),
        ("-5", None),
        ("5.0", None),
        ("٥", None),
        ("²", None),
        # More digits than Python converts.
        ("9" * 5000, None),
    ],
)
def test_whole_number_within_its_bounds_is_read_or_none(text: str, number: int | None):
    assert parse_whole_number(text, 5, 100) == number


@given(st.text(max_size=20) | st.lists(DATE_PARTS, max_size=7).map(" ".join))
@settings(max_examples=50, deadline=None)
def test_no_text_raises(header: str):
    seconds = parse_retry_after(header)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
