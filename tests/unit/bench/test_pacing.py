"""How much of a sliding limit's room is used, read off the arrivals at the upstream."""

import pytest

from bench.measurement import Measurement
from bench.pacing import BY_HEADERS, BY_SETTINGS, LIMIT, describe_arrivals, find_least, measure_used
from simulator.allowances import Arrival

#: Of the clock, which has begun at any time.
START = 1000.0


def send_bursts(period: float, until: float, account: int = 0, spacing: float = 1.0) -> list[Arrival]:
    """As many requests as allowed, every `period` seconds."""
    count = int(until // period) + 1
    moments = [burst * period + number * spacing for burst in range(count) for number in range(LIMIT)]
    return [Arrival(account, START + moment, is_allowed=True) for moment in moments]


@pytest.mark.parametrize("spacing", [0.0, 1.0, 6.0])
@pytest.mark.parametrize(
    ("period", "tolerance"), [(60.0, 1e-9), (60.5, 0.002), (61.0, 0.004), (63.0, 0.006), (75.0, 0.03)]
)
def test_used_is_the_rate_wherever_the_windows_begin(period: float, tolerance: float, spacing: float):
    arrivals = send_bursts(period, 600, spacing=spacing)
    assert measure_used(arrivals, 600, 1) == pytest.approx(60 / period, abs=tolerance)


def test_no_more_is_used_than_a_sliding_window_allows():
    assert measure_used(send_bursts(60.0, 700), 600, 1) == pytest.approx(1.0)


def test_account_that_stops_or_never_begins_counts_as_unused():
    stopped = [arrival for arrival in send_bursts(60.0, 600) if arrival.at < START + 300]
    assert measure_used(stopped, 600, 1) == pytest.approx(0.5, abs=0.06)
    assert measure_used(send_bursts(60.0, 600), 600, 2) == pytest.approx(0.5)


def test_refused_requests_use_nothing():
    refused = [Arrival(0, START + 5 * number, is_allowed=False) for number in range(100)]
    arrivals = send_bursts(60.0, 600)
    assert measure_used([*arrivals, *refused], 600, 1) == measure_used(arrivals, 600, 1)


def test_run_of_less_than_two_windows_is_refused():
    with pytest.raises(ValueError, match="too short"):
        measure_used(send_bursts(60.0, 119), 119, 1)


def test_least_distance_is_that_of_one_account_of_allowed_requests():
    arrivals = [*send_bursts(60.25, 600), *send_bursts(61.0, 600, account=1), Arrival(0, START + 1.5, is_allowed=False)]
    assert find_least(arrivals) == 60.25
    assert find_least(send_bursts(60.0, 10)) == 0.0


def find_misses(measurements: list[Measurement]) -> list[str]:
    return [measurement.name for measurement in measurements if measurement.holds is False]


def test_refusals_are_missed_bounds_by_headers_after_the_first_minute_by_settings_ever():
    arrivals = send_bursts(60.0, 600)
    early, late = (Arrival(0, START + at, is_allowed=False) for at in (59.9, 60.0))
    assert find_misses(describe_arrivals(BY_HEADERS, [*arrivals, early], 600, 1)) == []
    assert find_misses(describe_arrivals(BY_SETTINGS, [*arrivals, early], 600, 1)) == [
        "settings: refusals (429) in the first minute"
    ]
    for row in (BY_HEADERS, BY_SETTINGS):
        misses = find_misses(describe_arrivals(row, [*arrivals, late], 600, 1))
        assert misses == [f"{row.name}: refusals (429) after it"]
