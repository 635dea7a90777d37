"""Reads histograms in Prometheus's text format."""

import re

#: Upper bound of a bucket -> observations up to it.
Buckets = dict[float, float]


def read_buckets(metrics: str, histogram: str) -> Buckets:
    """The buckets of a histogram without labels; {} when there is none."""
    pattern = rf'^{histogram}_bucket{{le="([^"]+)"}} (\S+)$'
    return {float(bound): float(count) for bound, count in re.findall(pattern, metrics, re.MULTILINE)}


def subtract(buckets: Buckets, earlier: Buckets) -> Buckets:
    """What was observed since the earlier reading."""
    return {bound: count - earlier.get(bound, 0.0) for bound, count in buckets.items()}


def count_observations(buckets: Buckets) -> float:
    return buckets.get(float("inf"), 0.0)


def find_quantile(buckets: Buckets, share: float) -> float:
    """The quantile, interpolated within its bucket as PromQL's histogram_quantile does; NaN without observations.

    One beyond the last finite bound is that bound.
    """
    rank = share * count_observations(buckets)
    if not rank:
        return float("nan")
    lower, below = 0.0, 0.0
    for upper, count in sorted(buckets.items()):
        if count >= rank:
            return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return lower
