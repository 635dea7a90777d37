"""A pool's load is remembered for a while after it has ended."""

import pytest

from web.request.capacity import interactive_load
from web.request.capacity.interactive_load import PERIOD_SECONDS, InteractiveLoad, PoolLoad

START = 100 * PERIOD_SECONDS


def test_peak_is_the_most_at_a_time():
    load = PoolLoad()
    for count in (1, 1, -1, 1, 1, -1, -1, -1):
        load.add(count, START)
    assert (load.current, load.find_peak(START)) == (0, 3)


@pytest.mark.parametrize(("later", "peak"), [(0.9, 2), (1.0, 2), (1.9, 2), (2.0, 0), (30.0, 0)])
def test_peak_is_forgotten_after_the_next_period(later: float, peak: int):
    load = PoolLoad()
    load.add(2, START)
    load.add(-2, START)
    assert load.find_peak(START + later * PERIOD_SECONDS) == peak


def test_requests_that_run_for_long_count_as_long_as_they_run():
    load = PoolLoad()
    load.add(2, START)
    assert load.find_peak(START + 10 * PERIOD_SECONDS) == 2
    load.add(-2, START + 10 * PERIOD_SECONDS)
    assert load.find_peak(START + 11 * PERIOD_SECONDS) == 2


def test_pools_are_told_apart():
    load = InteractiveLoad()
    for pool in ("a", "b", "a"):
        load.begin(pool)
    load.end("b")
    assert load.read() == {"a": (2, 2), "b": (0, 1)}


def test_pools_without_requests_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interactive_load, "MAX_IDLE_POOLS", 2)
    load = InteractiveLoad()
    for pool in ("a", "b"):
        load.begin(pool)
    load.end("a")
    load.begin("c")
    assert load.read() == {"b": (1, 1), "c": (1, 1)}
    load.end("b")
