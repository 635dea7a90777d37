"""What the farm alone has to show, and the bound of each figure; every answer of every load is checked."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from bench.farm import KEY, Bench, farm
from bench.keys import KEY_CHECKS
from bench.load import Load, run
from bench.measured import Measured, at_least, at_most, exactly, told
from bench.mutations import mutated
from bench.outcome import Result
from bench.upstream import ROOT, simulator

#: Seconds of a load that are left out of the utilisation.
WARM_UP = 3.0


def load(bench: Bench, clients: int, seconds: float) -> Result:
    """Loads the farm."""
    return asyncio.run(run(Load("127.0.0.1", bench.port, KEY, clients, seconds)))


def utilisation(result: Result, service: float, accounts: int) -> float:
    """Share of the accounts' time that was spent on right answers, after the warm-up."""
    return result.busy_seconds(service, WARM_UP) / (result.seconds - WARM_UP) / accounts


def well(scenario: str, bench: Bench, result: Result) -> list[Measured]:
    """No collision and no error at any client."""
    errors = sum(result.errors.values())
    return [
        exactly(scenario, "collisions at the upstream", bench.upstream.counters()["collisions"]),
        exactly(scenario, f"errors at clients {dict(result.errors) or ''}".strip(), errors),
    ]


def expiry(seconds: float) -> list[Measured]:
    """Access tokens that live 3 s, under three clients for each account, with rotated refresh tokens."""
    with farm(100, "--delay", "1", "--access-ttl", "3", "--rotate") as bench:
        result = load(bench, 300, seconds)
        counters = bench.upstream.counters()
        elapsed = seconds + 4
        return [
            at_least(
                "expiry", "answers/s of the ideal 100, after the warm-up", 100 * utilisation(result, 1.0, 100), 95
            ),
            *well("expiry", bench, result),
            at_most("expiry", "refreshes per credential and second", counters["refreshes"] / 100 / elapsed, 0.5),
            at_most("expiry", "refresh tokens used twice", counters.get("reused_refresh_tokens", 0), 0),
        ]


def thousand(seconds: float) -> list[Measured]:
    """1,000 credentials at rest in one worker process: memory, and what `rq info` lists."""
    with farm(1000, "--delay", "5", FARM_WORKER_PROCESSES="1") as bench:
        time.sleep(5)
        idle = bench.memory()
        listed = subprocess.run(
            [sys.executable, "-m", "rq.cli", "info", "-u", bench.status()["redis_url"]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return [
            *(told("thousand", f"MB PSS idle: {kind}", value) for kind, value in idle.items()),
            at_most("thousand", "MB PSS idle, all farm processes", sum(idle.values()), 300),
            at_least("thousand", "workers that `rq info` lists", listed.count("idle chat:default"), 1000),
        ]


def sharing(seconds: float) -> list[Measured]:
    """Two worker processes, one stopped and one started again under load."""
    with farm(100, "--delay", "0.5", FARM_WORKER_PROCESSES="1") as bench:
        environment = {**bench.environment, "REDIS_URL": str(bench.status()["redis_url"])}
        evened: list[float] = []

        def change() -> None:
            for _ in range(2):
                second = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, cwd=ROOT)
                evened.append(wait_for_shares(bench, [50, 50]))
                time.sleep(2)
                second.send_signal(signal.SIGTERM)
                second.wait()
                evened.append(wait_for_shares(bench, [100]))

        thread = threading.Thread(target=change)
        thread.start()
        result = load(bench, 200, max(seconds, 30))
        thread.join()
        return [
            at_most("sharing", "seconds until the shares are even, worst", max(evened), 10),
            *well("sharing", bench, result),
        ]


def wait_for_shares(bench: Bench, wanted: list[int]) -> float:
    """Seconds until the credentials are shared out like that."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        owners = Counter(one["owner"] for one in json.loads(bench.command("credentials", "list", "--json")))
        if sorted(owners.values()) == wanted and "" not in owners:
            break
        time.sleep(0.2)
    return time.monotonic() - began


def upstream(seconds: float) -> list[Measured]:
    """The simulator alone, so that it never is what is measured."""
    with simulator(20) as bare:
        bare.ask("accounts", {"slots": 20})
        result = asyncio.run(run(Load("127.0.0.1", bare.port, bare.access_tokens()[0], 20, min(5, seconds))))
        errors = sum(result.errors.values())
        return [
            at_least("upstream", "requests/s without delay", result.rate, 5000),
            exactly("upstream", "errors", errors),
        ]


CHECKS: dict[str, Callable[[float], list[Measured]]] = {
    "expiry": expiry,
    "thousand": thousand,
    "sharing": sharing,
    "upstream": upstream,
    **KEY_CHECKS,
    "mutated": mutated,
}
