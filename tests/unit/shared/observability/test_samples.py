"""What happened between two samples of running totals."""

import pytest

from shared.observability.counters import METRICS
from shared.observability.samples import HISTOGRAMS, Totals, compare, decode_totals, estimate_quantile


def build(requests: dict[str, float], waiting: int = 0, busy: int = 0, idle_waiting: float = 0.0) -> Totals:
    return Totals(
        requests={"default": requests},
        account_seconds={"default": {"idle_waiting": idle_waiting}},
        now={"default": {"waiting": waiting, "held": 0, "busy": busy, "workers": 10}},
    )


def test_differences_are_told():
    before = build({"200": 100, "429": 5}, waiting=2, busy=10, idle_waiting=7.5)
    after = build({"200": 140, "429": 5, "502": 1}, waiting=12, busy=8, idle_waiting=9.0)
    interval = compare(before, after, at=1000.0, seconds=5.0)
    pool = interval.pools["default"]
    assert (pool.finished, pool.failed, pool.waiting, pool.busy, pool.workers) == (41, 1, 12, 8, 10)
    assert pool.arrived == 41 + 10 - 2
    assert pool.account_seconds == {"idle_waiting": 1.5}
    assert interval.statuses == {"200": 40, "502": 1}


def test_lost_totals_count_as_nothing():
    pool = compare(build({"200": 100}, idle_waiting=9.0), build({"200": 3}, idle_waiting=1.0), 1000.0, 5.0).pools[
        "default"
    ]
    assert (pool.finished, pool.arrived, pool.account_seconds) == (0, 0, {"idle_waiting": 0.0})


def test_percentiles_are_of_the_interval_alone():
    name = HISTOGRAMS[0]
    buckets = len(METRICS[name].bounds) + 1
    before = Totals(histograms={name: [1000.0, *(buckets - 1) * [0.0]]})
    after = Totals(histograms={name: [1000.0, 10.0, *(buckets - 2) * [0.0]]})
    interval = compare(before, after, 1000.0, 5.0)
    low, high = METRICS[name].bounds[:2]
    assert interval.queue_wait == {
        "p50": pytest.approx((low + high) / 2, abs=1e-4),
        "p95": pytest.approx(low + 0.95 * (high - low), abs=1e-4),
    }
    assert interval.first_byte == {"p50": None, "p95": None}


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([1, 1, 0], 0.95, 1.9),
        ([0, 0, 3], 0.5, 2.0),
        ([2, 2, 0], 0.5, 1.0),
    ],
)
def test_quantile_lies_within_its_bucket(counts: list[float], share: float, value: float | None):
    assert estimate_quantile((1.0, 2.0), counts, share) == value


def test_sample_of_another_version_is_read_as_far_as_it_can_be():
    assert decode_totals(b"{") == Totals()
    assert decode_totals(b'{"requests": {"p": {"200": 1}}, "histograms": 5, "new": {}}') == Totals({"p": {"200": 1}})
