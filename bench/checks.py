"""Checks of the farm alone, with the bound of each figure."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from bench.batches import measure_batch
from bench.console.live import measure_live
from bench.console.pages import measure_console
from bench.durability import measure_durability
from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.hostile import measure_hostile
from bench.hosts.distance import measure_distances
from bench.https import measure_https
from bench.keys import KEY_CHECKS
from bench.large_bodies import measure_large_bodies
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from bench.mutations import measure_mutated_requests
from bench.outcome import LoadResult
from bench.pacing import measure_pacing
from bench.simulator import ROOT, run_simulator
from bench.sizing import measure_sizes
from bench.tls import measure_tls
from bench.token_stores import measure_token_stores

#: Start of a load that is left out of the utilisation.
WARM_UP_SECONDS = 3.0


def load_farm(farm: MeasuredFarm, clients: int, seconds: float) -> LoadResult:
    return asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, clients, seconds)))


def utilisation(result: LoadResult, service: float, accounts: int) -> float:
    """Share of the accounts' time spent on correct responses of `service` seconds, after the warm-up."""
    return result.busy_seconds(service, WARM_UP_SECONDS) / (result.seconds - WARM_UP_SECONDS) / accounts


def check_no_errors(scenario: str, farm: MeasuredFarm, result: LoadResult) -> list[Measurement]:
    """No collision at the upstream and no error at any client."""
    errors = sum(result.errors.values())
    return [
        exactly(scenario, "collisions at the upstream", farm.upstream.read_counters()["collisions"]),
        exactly(scenario, f"errors at clients {dict(result.errors) or ''}".strip(), errors),
    ]


def measure_expiry(seconds: float) -> list[Measurement]:
    """Access tokens that expire after 3 s and rotated refresh tokens, with three clients per account."""
    with run_farm(100, "--delay", "1", "--access-ttl", "3", "--rotate") as farm:
        result = load_farm(farm, 300, seconds)
        counters = farm.upstream.read_counters()
        elapsed = seconds + 4
        return [
            at_least(
                "expiry", "answers/s of the ideal 100, after the warm-up", 100 * utilisation(result, 1.0, 100), 95
            ),
            *check_no_errors("expiry", farm, result),
            at_most("expiry", "refreshes per credential and second", counters["refreshes"] / 100 / elapsed, 0.5),
            at_most("expiry", "refresh tokens used twice", counters.get("reused_refresh_tokens", 0), 0),
        ]


def measure_thousand(seconds: float) -> list[Measurement]:
    """1,000 idle credentials in one worker process: memory, and the workers that `rq info` lists."""
    with run_farm(1000, "--delay", "5", FARM_WORKER_PROCESSES="1") as farm:
        time.sleep(5)
        memory = farm.measure_memory()
        listing = subprocess.run(
            [sys.executable, "-m", "rq.cli", "info", "-u", farm.record.redis_url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return [
            *(unbounded("thousand", f"MB PSS idle: {kind}", megabytes) for kind, megabytes in memory.items()),
            at_most("thousand", "MB PSS idle, all farm processes", sum(memory.values()), 300),
            at_least("thousand", "workers that `rq info` lists", listing.count("idle chat:default"), 1000),
        ]


def measure_sharing(seconds: float) -> list[Measurement]:
    """Two worker processes, one stopped and started again under load."""
    with run_farm(100, "--delay", "0.5", FARM_WORKER_PROCESSES="1") as farm:
        environment = {**farm.environment, "REDIS_URL": farm.record.redis_url}
        waits: list[float] = []

        def restart_second_process() -> None:
            for _ in range(2):
                second = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, cwd=ROOT)
                waits.append(wait_for_shares(farm, [50, 50]))
                time.sleep(2)
                second.send_signal(signal.SIGTERM)
                second.wait()
                waits.append(wait_for_shares(farm, [100]))

        thread = threading.Thread(target=restart_second_process, daemon=True)
        thread.start()
        result = load_farm(farm, 200, max(seconds, 30))
        thread.join()
        return [
            at_most("sharing", "seconds until the shares are even, worst", max(waits), 10),
            *check_no_errors("sharing", farm, result),
        ]


def wait_for_shares(farm: MeasuredFarm, shares: list[int]) -> float:
    """Seconds until the worker processes hold these numbers of credentials; gives up after 30."""
    started = time.monotonic()
    while time.monotonic() - started < 30:
        credentials = json.loads(farm.run_command("credentials", "list", "--json"))
        owners = Counter(credential["owner"] for credential in credentials)
        if sorted(owners.values()) == shares and "" not in owners:
            break
        time.sleep(0.2)
    return time.monotonic() - started


def measure_simulator(seconds: float) -> list[Measurement]:
    """The simulator alone, to show that it is not the bottleneck."""
    with run_simulator(20) as simulator:
        simulator.control("accounts", {"slots": 20})
        load = Load("127.0.0.1", simulator.port, simulator.fetch_access_tokens()[0], 20, min(5, seconds))
        result = asyncio.run(run_load(load))
        errors = sum(result.errors.values())
        return [
            at_least("upstream", "requests/s without delay", result.rate, 5000),
            exactly("upstream", "errors", errors),
        ]


CHECKS: dict[str, Callable[[float], list[Measurement]]] = {
    "expiry": measure_expiry,
    "thousand": measure_thousand,
    "sharing": measure_sharing,
    "upstream": measure_simulator,
    **KEY_CHECKS,
    "mutated": measure_mutated_requests,
    "hostile": measure_hostile,
    "large-bodies": measure_large_bodies,
    "sizing": measure_sizes,
    "https": measure_https,
    "tls": measure_tls,
    "durability": measure_durability,
    "token-stores": measure_token_stores,
    "distance": measure_distances,
    "pacing": measure_pacing,
    "console": measure_console,
    "live": measure_live,
    "batch": measure_batch,
}
