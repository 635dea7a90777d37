"""Python looks for reference cycles rarely, and not among the objects that exist at the start."""

import gc
from collections.abc import Iterator

import pytest

from shared import gc_tuning


@pytest.fixture(autouse=True)
def restore_gc() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_collector_runs_rarely_while_many_objects_are_alive():
    gc_tuning.tune_gc()
    assert gc.get_freeze_count() > 1000
    before = gc.get_stats()[0]["collections"]
    waiting = [{"number": number} for number in range(40_000)]
    assert gc.get_stats()[0]["collections"] - before <= 1
    assert len(waiting) == 40_000


def test_collector_still_frees_cycles():
    gc_tuning.tune_gc()
    before = gc.get_stats()[0]["collected"]
    for _ in range(60_000):
        cycle: list[object] = []
        cycle.append(cycle)
    assert gc.get_stats()[0]["collected"] > before
