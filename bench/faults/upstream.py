"""Rows in which the upstream fails."""

import time

from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import in_background
from bench.faults.invariants import check_responses
from bench.faults.scale import WARM_UP_SECONDS, FaultScale, busy_share, run_streams
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.outcome import LoadResult


def measure_mixed_errors(scale: FaultScale) -> list[Measurement]:
    """10 % 429, 5 % 500, 2 % hangs: no client sees an error."""
    row = "mixed"
    with run_farm(scale.accounts, *scale.pace, FARM_FIRST_BYTE_TIMEOUT="2", FARM_WORKER_PROCESSES="2") as farm:
        faults = {"seed": scale.seed, "rate_limit": 0.1, "server_error": 0.05, "hang_headers": 0.02}
        farm.upstream.control("faults", faults)
        result = run_streams(farm, scale)
        counters = farm.upstream.read_counters()
        # Each 429 costs its Retry-After of 1 s, each hang the first-byte timeout of 2 s.
        lost = counters.get("fault_rate_limit", 0) * 1.0 + counters.get("fault_hang_headers", 0) * 2.0
        duration = max(result.end_times, default=scale.seconds)
        healthy = scale.accounts * duration - lost
        return [
            *check_responses(row, farm, result),
            at_least(
                row, "share of the healthy credential time", compute_goodput(result, scale, healthy, duration), 0.9
            ),
            unbounded(row, "answers", len(result.end_times)),
            unbounded(row, "429s, 500s and hangs", sum(counters.get(f"fault_{name}", 0) for name in faults)),
        ]


def compute_goodput(result: LoadResult, scale: FaultScale, healthy: float, duration: float) -> float:
    """Busy account seconds over the healthy ones, without the warm-up and the tail of the load.

    `healthy` counts over the whole duration (seconds) and is scaled down to that window.
    """
    busy = result.busy_seconds(scale.stream, WARM_UP_SECONDS, scale.seconds)
    return busy / (healthy * (scale.seconds - WARM_UP_SECONDS) / duration)


def measure_dead_accounts(scale: FaultScale) -> list[Measurement]:
    """A fifth of the accounts are dead from the start: no client sees an error, and they take no second job."""
    row = "dead"
    dead = scale.accounts // 5

    def kill_accounts(farm: MeasuredFarm) -> None:
        for number in range(dead):
            farm.upstream.control("accounts", {"kill": number})

    with run_farm(scale.accounts, *scale.pace, prepare=kill_accounts, FARM_REFUSAL_PATIENCE="3") as farm:
        result = run_streams(farm, scale)
        states = farm.read_pool()["credentials"]
        return [
            *check_responses(row, farm, result),
            exactly(row, "credentials called dead", states["dead"], dead),
            exactly(row, "jobs that they took", farm.read_metric("farm_attempts_total", 'outcome="invalid_grant')),
            at_least(row, "share of the others' time", busy_share(result, scale, scale.accounts - dead), 0.97),
        ]


def measure_refusing_endpoint(scale: FaultScale) -> list[Measurement]:
    """The token endpoint refuses every token for a while, when all access tokens expire: no credential dies."""
    row = "refusing"
    with run_farm(scale.accounts, *scale.pace, "--rotate") as farm:

        def refuse() -> None:
            time.sleep(WARM_UP_SECONDS)
            farm.upstream.control("faults", {"token_refusal": 1})
            farm.upstream.control("accounts", {"expire": True})
            time.sleep(scale.seconds / 3)
            farm.upstream.control("faults", {})

        with in_background(refuse):
            result = run_streams(farm, scale)
        back_at = WARM_UP_SECONDS + scale.seconds / 3
        states = farm.read_pool()["credentials"]
        back = min((ended - back_at for ended in result.end_times if ended > back_at + scale.stream), default=1e9)
        return [
            *check_responses(row, farm, result),
            exactly(row, "credentials called dead", states["dead"]),
            unbounded(row, "token requests refused", farm.upstream.read_counters().get("fault_token_refusal", 0)),
            unbounded(row, "seconds until the first response after it", back),
        ]


def measure_cut_streams(scale: FaultScale) -> list[Measurement]:
    """The upstream cuts 5 % of the streams: exactly those end with an error event."""
    row = "cuts"
    with run_farm(scale.accounts, *scale.pace) as farm:
        farm.upstream.control("faults", {"seed": scale.seed, "cut": 0.05})
        result = run_streams(farm, scale)
        seen = result.errors["error event upstream_eof"]
        cut = farm.upstream.read_counters().get("fault_cut", 0)
        return [
            *check_responses(row, farm, result, "error event upstream_eof"),
            exactly(row, "streams with an error event, of those cut", seen, cut),
            unbounded(row, "answers", len(result.end_times)),
        ]
