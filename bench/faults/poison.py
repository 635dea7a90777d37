"""The row in which one of ten callers sends only requests that the upstream refuses, whatever the account."""

import asyncio
import time

from bench.farm import MeasuredFarm, run_farm
from bench.faults.scale import FaultScale
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from bench.outcome import LoadResult
from shared.api_keys.store import ApiKeys

ACCOUNTS = 20
#: Callers with an API key each, and the clients of each: more than there are accounts, so requests wait.
GOOD_CALLERS, CLIENTS_EACH = 9, 3
#: Seconds that the upstream takes for a good response.
RESPONSE_SECONDS = 0.5
#: Longest pause in seconds without proof (workers.credentials.suspicion), and some more for a busy machine.
SUSPICION_SECONDS = 8.0
#: What the upstream says to a poisoned request; the first load is without any.
KINDS = {
    "none": {},
    "403": {"poison": 403},
    "429": {"poison": 429},
    "429 with retry-after": {"poison": 429, "poison_retry_after": 20},
    "500": {"poison": 500},
}


def measure_poison(scale: FaultScale) -> list[Measurement]:
    """Nine callers are served as if the tenth, who sends only refused requests, were not there."""
    measurements: list[Measurement] = []
    with run_farm(ACCOUNTS, "--delay", f"{RESPONSE_SECONDS:g}") as farm:
        good_keys = [create_key(farm, f"good {number}") for number in range(GOOD_CALLERS)]
        poisoner = create_key(farm, "poison")
        undisturbed = None
        for kind, faults in KINDS.items():
            farm.upstream.control("faults", faults)
            good, poisoned = asyncio.run(run_callers(farm, good_keys, poisoner if faults else "", scale.seconds / 3))
            undisturbed = undisturbed or good
            measurements += compare(f"poison {kind}", good, undisturbed, poisoned)
        measurements.append(exactly("poison", "accounts cooling at the end", count_cooling(farm)))
    return measurements


def create_key(farm: MeasuredFarm, name: str) -> str:
    return ApiKeys(farm.redis.client).create(name)[0]


async def run_callers(
    farm: MeasuredFarm, good_keys: list[str], poisoner: str, seconds: float
) -> tuple[list[LoadResult], LoadResult]:
    """The results of the good callers, and that of the poisoner ('' for none)."""
    good = [Load("127.0.0.1", farm.port, key, CLIENTS_EACH, seconds) for key in good_keys]
    poison = Load("127.0.0.1", farm.port, poisoner, CLIENTS_EACH if poisoner else 0, seconds, model="poison")
    *results, poisoned = await asyncio.gather(*map(run_load, [*good, poison]))
    return results, poisoned


def compare(row: str, good: list[LoadResult], undisturbed: list[LoadResult], poisoned: LoadResult) -> list[Measurement]:
    errors = sum(sum(result.errors.values()) for result in good)
    served = sum(result.completed for result in good)
    return [
        exactly(row, "errors of the good callers", errors),
        at_least(row, "their answers, of those without poison", served / sum(r.completed for r in undisturbed), 0.9),
        at_most(row, "their mean latency, over that without poison", mean(good) / mean(undisturbed), 1.1),
        unbounded(row, "answers", served),
        unbounded(row, "refused requests", sum(poisoned.errors.values())),
    ]


def mean(results: list[LoadResult]) -> float:
    latencies = [latency for result in results for latency in result.latencies]
    return sum(latencies) / len(latencies) if latencies else float("inf")


def count_cooling(farm: MeasuredFarm) -> int:
    """Accounts that cool down for longer than a suspicion may: by a pause not taken back, or a proven fault."""
    deadline = time.monotonic() + SUSPICION_SECONDS
    while (count := int(farm.read_pool()["credentials"]["cooling"])) and time.monotonic() < deadline:
        time.sleep(0.5)
    return count
