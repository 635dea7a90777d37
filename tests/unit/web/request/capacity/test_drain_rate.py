"""The expected wait follows the rate at which a queue drains."""

import pytest

from tests import internals
from web.request.capacity.drain_rate import DrainRate


@pytest.mark.parametrize(
    ("rate", "waiting", "seconds"), [(10, 100, 10), (10, 0, 1), (1, 1000, 60), (0, 5, 60), (0, 0, 1)]
)
def test_retry_after_follows_the_measured_rate_within_bounds(rate: float, waiting: int, seconds: int):
    drain = DrainRate(None, ["default"])
    internals.set_drain_rate(drain, "default", rate)
    assert drain.retry_after("default", waiting) == seconds


def test_refused_requests_are_told_to_come_back_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    drain = DrainRate(None, ["default"])
    internals.set_drain_rate(drain, "default", 0.5)
    waits = [drain.retry_after("default", 5) for _ in range(100)]
    assert waits[:25] == pytest.approx(range(10, 60, 2), abs=1)
    assert max(waits) <= 60
    assert len(set(waits[25:])) >= 20
