"""Quantiles are read off a histogram as PromQL's histogram_quantile does."""

import math

import pytest

from bench.histograms import find_quantile, read_buckets, subtract

METRICS = """
# TYPE farm_x_seconds histogram
farm_x_seconds_bucket{le="0.001"} 2.0
farm_x_seconds_bucket{le="0.002"} 6.0
farm_x_seconds_bucket{le="+Inf"} 8.0
farm_x_seconds_count 8.0
farm_xx_seconds_bucket{le="0.001"} 9.0
"""


@pytest.mark.parametrize(
    ("share", "quantile"), [(0.125, 0.0005), (0.25, 0.001), (0.5, 0.0015), (0.75, 0.002), (0.99, 0.002)]
)
def test_quantile_is_interpolated_within_its_bucket(share: float, quantile: float):
    assert find_quantile(read_buckets(METRICS, "farm_x_seconds"), share) == pytest.approx(quantile)


def test_histogram_without_observations_has_no_quantile():
    buckets = read_buckets(METRICS, "farm_x_seconds")
    assert math.isnan(find_quantile({}, 0.5))
    assert math.isnan(find_quantile(subtract(buckets, buckets), 0.5))


def test_earlier_observations_are_subtracted():
    assert subtract({0.001: 5.0, 0.002: 7.0}, {0.001: 4.0}) == {0.001: 1.0, 0.002: 7.0}
