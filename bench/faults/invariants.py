"""Invariants that hold whatever is broken."""

import time

from bench.farm import MeasuredFarm
from bench.measurement import Measurement, exactly
from bench.outcome import MIXED, STUCK, TRUNCATED, LoadResult


def select_errors(result: LoadResult, *allowed: str) -> dict[str, int]:
    """Counts the errors whose outcome does not start with an allowed one."""
    return {outcome: count for outcome, count in result.errors.items() if not outcome.startswith(allowed)}


def check_responses(
    row: str, farm: MeasuredFarm, result: LoadResult, *allowed: str, collisions: bool = True
) -> list[Measurement]:
    """No collision, no truncated, mixed or stuck response, and no error except the allowed ones."""
    others = select_errors(result, *allowed) if allowed else dict(result.errors)
    bad = {outcome: result.errors[outcome] for outcome in (TRUNCATED, MIXED, STUCK) if result.errors[outcome]}
    measurements = [exactly(row, f"answers short, mixed or stuck {bad or ''}".strip(), sum(bad.values()))]
    if collisions:
        count = farm.upstream.read_counters()["collisions"]
        measurements.append(exactly(row, "collisions at the upstream", count))
    return [*measurements, exactly(row, f"errors beside those {others or ''}".strip(), sum(others.values()))]


def check_nothing_left(row: str, farm: MeasuredFarm, accounts: int) -> list[Measurement]:
    """After the load: no job in any registry of RQ's, no account in use, and every worker idle within 15 s."""
    deadline = time.monotonic() + 15
    while (counts := count_leftovers(farm))["jobs"] + counts["held"] or counts["idle"] < accounts:
        if time.monotonic() > deadline:
            break
        time.sleep(0.3)
    return [
        exactly(row, "jobs left in Redis", counts["jobs"]),
        exactly(row, "accounts still held", counts["held"]),
        exactly(row, "idle workers", counts["idle"], accounts),
    ]


def count_leftovers(farm: MeasuredFarm) -> dict[str, int]:
    """Counts `jobs` in Redis, accounts that are `held` by a request, and `idle` workers."""
    redis = farm.redis.client
    queued = redis.llen("rq:queue:chat:default") + redis.llen("rq:queue:chat:default:intermediate")
    running = redis.zcard("rq:wip:chat:default") + len(redis.keys("farm:body:*"))
    idle = farm.read_pool()["workers"]["idle"]
    return {"jobs": queued + running, "held": farm.upstream.read_counters()["in_flight"], "idle": idle}
