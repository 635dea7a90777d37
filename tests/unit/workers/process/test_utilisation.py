"""Utilisation is the share of a window in which workers were busy."""

from types import SimpleNamespace
from typing import Any

import pytest

from workers.process import utilisation
from workers.process.utilisation import WINDOW_SECONDS, UtilisationMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def build_worker(pool: str, seconds: float) -> Any:
    return SimpleNamespace(lease=SimpleNamespace(pool=pool), runner=SimpleNamespace(seconds_worked=lambda: seconds))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(utilisation, "time", clock)
    return clock


def test_utilisation_is_the_busy_share_of_the_last_window(clock: Clock):
    meter = UtilisationMeter(["a", "b"])
    clock.now += WINDOW_SECONDS
    assert meter.measure({"a": [build_worker("a", 10.0), build_worker("a", 0.0)]}) == {"a": 0.5, "b": 0.0}
    clock.now += WINDOW_SECONDS / 2
    assert meter.measure({"a": [build_worker("a", 15.0), build_worker("a", 5.0)]})["a"] == 0.5
    clock.now += WINDOW_SECONDS / 2
    assert meter.measure({"a": [build_worker("a", 20.0), build_worker("a", 10.0)]})["a"] == 1.0


def test_time_of_ended_workers_counts_once(clock: Clock):
    meter = UtilisationMeter(["a"])
    meter.record_ended(build_worker("a", 4.0))
    meter.record_ended(build_worker("a~private", 4.0))
    clock.now += WINDOW_SECONDS
    assert meter.measure({"a": [build_worker("a", 1.0)]})["a"] == 0.5
    clock.now += WINDOW_SECONDS
    assert meter.measure({"a": [build_worker("a", 1.0)]})["a"] == 0.0
