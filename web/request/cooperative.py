"""Runs long computations in slices, so that a front's event loop turns in between."""

import time
from collections.abc import Iterable

import gevent
from gevent.lock import BoundedSemaphore

#: Seconds of a slice.
SLICE_SECONDS = 0.002
#: One computation at a time takes slices: several would hold up each turn of the loop by a slice each.
turn = BoundedSemaphore(1)


def take_breaks(steps: Iterable[None]) -> None:
    """Takes steps, some of which may wait, or run in slices themselves."""
    ends_at = time.perf_counter() + SLICE_SECONDS
    for _ in steps:
        if time.perf_counter() > ends_at:
            gevent.sleep(0)
            ends_at = time.perf_counter() + SLICE_SECONDS


def run_in_slices(steps: Iterable[None]) -> None:
    """Takes the steps, each of which should be short."""
    with turn:
        ends_at = time.perf_counter() + SLICE_SECONDS
        for _ in steps:
            if time.perf_counter() > ends_at:
                gevent.sleep(0)
                ends_at = time.perf_counter() + SLICE_SECONDS
