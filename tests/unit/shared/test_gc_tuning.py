"""Python looks for cycles rarely, and not among what is here from the start."""

import gc
from collections.abc import Iterator

import pytest

from shared import gc_tuning


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_waits_is_not_looked_at_again_and_again():
    gc_tuning.tune_gc()
    assert gc.get_freeze_count() > 1000
    before = gc.get_stats()[0]["collections"]
    waiting = [{"number": number} for number in range(40_000)]
    assert gc.get_stats()[0]["collections"] - before <= 1
    assert len(waiting) == 40_000


def test_cycles_are_found_all_the_same():
    gc_tuning.tune_gc()
    before = gc.get_stats()[0]["collected"]
    for _ in range(60_000):
        one: list[object] = []
        one.append(one)
    assert gc.get_stats()[0]["collected"] > before
