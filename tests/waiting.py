"""Polls a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 30.0) -> T:
    """Returns the condition's first true value; fails with its last value after `within` seconds."""
    until = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < until, f"still {value!r} after {within} s"
        time.sleep(0.02)
    return value
