"""Rows in which the upstream fails."""

from bench.farm import Bench, farm
from bench.faults.common import WARM_UP, Scale, load, share, sound
from bench.measured import Measured, at_least, exactly, told
from bench.outcome import Result


def mixed(scale: Scale) -> list[Measured]:
    """10 % 429, 5 % 500, 2 % hangs: no client error."""
    row = "mixed"
    with farm(scale.accounts, *scale.pace, FARM_FIRST_BYTE_TIMEOUT="2", FARM_WORKER_PROCESSES="2") as bench:
        shares = {"seed": scale.seed, "rate_limit": 0.1, "server_error": 0.05, "hang_headers": 0.02}
        bench.upstream.ask("faults", shares)
        result = load(bench, scale)
        counts = bench.upstream.counters()
        lost = counts.get("fault_rate_limit", 0) * 1.0 + counts.get("fault_hang_headers", 0) * 2.0
        whole = max(result.ends, default=scale.seconds)
        healthy = scale.accounts * whole - lost
        return [
            *sound(row, bench, result),
            at_least(row, "share of the healthy credential time", goodput(result, scale, healthy, whole), 0.9),
            told(row, "answers", len(result.ends)),
            told(row, "429s, 500s and hangs", sum(counts.get(f"fault_{one}", 0) for one in shares)),
        ]


def goodput(result: Result, scale: Scale, healthy: float, whole: float) -> float:
    """Time of right answers over the healthy time, the slack at both ends of the load left out."""
    inside = result.busy_seconds(scale.stream, WARM_UP, scale.seconds)
    return inside / (healthy * (scale.seconds - WARM_UP) / whole)


def dead(scale: Scale) -> list[Measured]:
    """A fifth of the accounts are refused from the start: no client error, no second job for them."""
    row = "dead"
    refused = scale.accounts // 5

    def kill(bench: Bench) -> None:
        for number in range(refused):
            bench.upstream.ask("accounts", {"kill": number})

    with farm(scale.accounts, *scale.pace, prepare=kill) as bench:
        result = load(bench, scale)
        states = bench.status()["pools"][0]["credentials"]
        return [
            *sound(row, bench, result),
            exactly(row, "credentials called dead", states["dead"], refused),
            exactly(row, "jobs that they took", bench.metric("farm_attempts_total", 'outcome="no_token"')),
            at_least(row, "share of the others' time", share(result, scale, scale.accounts - refused), 0.97),
        ]


def cuts(scale: Scale) -> list[Measured]:
    """5 % of the streams are cut by the upstream: exactly those end with an error event."""
    row = "cuts"
    with farm(scale.accounts, *scale.pace) as bench:
        bench.upstream.ask("faults", {"seed": scale.seed, "cut": 0.05})
        result = load(bench, scale)
        seen = result.errors["error event upstream_eof"]
        return [
            *sound(row, bench, result, "error event upstream_eof"),
            exactly(
                row, "streams with an error event, of those cut", seen, bench.upstream.counters().get("fault_cut", 0)
            ),
            told(row, "answers", len(result.ends)),
        ]
