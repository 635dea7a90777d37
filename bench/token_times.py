"""Times from a token endpoint's answer until the rotated token is stored, as the farm's own histograms have them."""

from bench.farm import MeasuredFarm
from bench.histograms import Buckets, find_quantile
from bench.measurement import Measurement, unbounded

#: Until Redis has it: a kill of the token refresher can lose it. Until it is on disk: a crash of the machine can.
STORED, DURABLE = "farm_token_store_seconds", "farm_token_durable_seconds"
ENDS = {STORED: "Redis has the token", DURABLE: "it is on disk"}


def read_token_times(farm: MeasuredFarm) -> dict[str, Buckets]:
    return {name: farm.read_histogram(name) for name in ENDS}


def list_quantiles(scenario: str, prefix: str, histograms: dict[str, Buckets]) -> list[Measurement]:
    """Median and 99th percentile of each, in milliseconds."""
    return [
        unbounded(
            scenario, f"{prefix} until {end}, {name}", round(1000 * find_quantile(histograms[histogram], share), 2)
        )
        for histogram, end in ENDS.items()
        for name, share in (("median", 0.5), ("p99", 0.99))
    ]
