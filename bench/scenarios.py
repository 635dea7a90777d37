"""What is measured, and the bound that each figure has to keep; every answer of every load is checked."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

from bench.farm import KEY, ROOT, Bench, farm
from bench.load import Load, Result, run
from bench.measured import Measured, at_least, at_most, exactly, told
from simulator.accounts import Accounts

#: Seconds of a load that are left out of the utilisation.
WARM_UP = 3.0


def load(bench: Bench, clients: int, seconds: float, *, stream: bool = False) -> Result:
    """Loads the farm."""
    return asyncio.run(run(Load("127.0.0.1", bench.port, KEY, clients, seconds, stream)))


def utilisation(result: Result, service: float, accounts: int) -> float:
    """Share of the accounts' time that was spent on right answers, after the warm-up."""
    return result.busy_seconds(service, WARM_UP) / (result.seconds - WARM_UP) / accounts


def well(scenario: str, bench: Bench, result: Result) -> list[Measured]:
    """No collision and no error at any client."""
    errors = sum(result.errors.values())
    return [
        exactly(scenario, "collisions at the upstream", bench.counters()["collisions"]),
        exactly(scenario, f"errors at clients {dict(result.errors) or ''}".strip(), errors),
    ]


def costs(scenario: str, before: dict[str, float], after: dict[str, float], answers: int) -> list[Measured]:
    """CPU time per answer, by kind of process."""
    kinds = ("front", "workers", "redis")
    return [told(scenario, f"CPU ms per answer: {k}", 1000 * (after[k] - before[k]) / max(1, answers)) for k in kinds]


def busy(scenario: str, seconds: float, *, stream: bool) -> list[Measured]:
    """100 accounts that take a second for each answer, and three clients for each."""
    pace = ("--chunks", "50", "--chunk-delay", "0.02") if stream else ("--delay", "1")
    with farm(100, *pace) as bench:
        before = bench.cpu_seconds()
        result = load(bench, 300, seconds, stream=stream)
        after = bench.cpu_seconds()
        share = utilisation(result, 1.0, 100)
        return [
            at_least(scenario, "answers/s of the ideal 100, after the warm-up", 100 * share, 97),
            told(scenario, "latency p50, s (ideal 3)", result.percentile(0.5)),
            told(scenario, "latency p99, s", result.percentile(0.99)),
            *well(scenario, bench, result),
            *costs(scenario, before, after, result.answers),
        ]


def saturation(seconds: float) -> list[Measured]:
    """100 accounts, answers of 1 s, 300 clients."""
    return busy("saturation", seconds, stream=False)


def streaming(seconds: float) -> list[Measured]:
    """The same with streams of 50 chunks, 20 ms apart."""
    return busy("streaming", seconds, stream=True)


def expiry(seconds: float) -> list[Measured]:
    """Access tokens that live 3 s, under the load of `saturation`, with rotated refresh tokens."""
    with farm(100, "--delay", "1", "--access-ttl", "3", "--rotate") as bench:
        result = load(bench, 300, seconds)
        counters = bench.counters()
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
    """1,000 credentials in one worker process: memory idle, and under 5 s answers for 2,000 clients."""
    with farm(1000, "--delay", "5", FARM_WORKER_PROCESSES="1") as bench:
        time.sleep(5)
        idle = bench.memory()
        listed = subprocess.run(
            [sys.executable, "-m", "rq.cli", "info", "-u", bench.status()["redis_url"]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        mine = [told("thousand", f"MB PSS idle: {k}", v) for k, v in idle.items() if k != "simulator"]
        total = sum(value for kind, value in idle.items() if kind != "simulator")
        result = load(bench, 2000, max(seconds, 25))
        loaded = sum(value for kind, value in bench.memory().items() if kind != "simulator")
        return [
            *mine,
            at_most("thousand", "MB PSS idle, all farm processes", total, 300),
            at_least("thousand", "workers that `rq info` lists", listed.count("idle chat:default"), 1000),
            told("thousand", "MB PSS after load", loaded),
            told("thousand", "utilisation", utilisation(result, 5.0, 1000)),
            *well("thousand", bench, result),
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


def overhead(seconds: float) -> list[Measured]:
    """No upstream delay: requests/s and CPU per request with 50 clients, latency with one."""
    with farm(100) as bench:
        load(bench, 50, 2)
        before = bench.cpu_seconds()
        result = load(bench, 50, min(seconds, 10))
        after = bench.cpu_seconds()
        alone = load(bench, 1, 5)
        return [
            told("overhead", "requests/s, 50 clients", result.rate),
            told("overhead", "latency with one client p50, ms", 1000 * alone.percentile(0.5)),
            told("overhead", "latency with one client p99, ms", 1000 * alone.percentile(0.99)),
            *well("overhead", bench, result),
            *costs("overhead", before, after, result.answers),
        ]


def start(seconds: float) -> list[Measured]:
    """From `./farm up` to ready, packages installed."""
    times = []
    for _ in range(3):
        with farm(20, REDIS_URL="") as bench:
            times.append(bench.start_seconds)
    return [at_most("start", "seconds to ready, median of 3", sorted(times)[1], 5)]


def simulator(seconds: float) -> list[Measured]:
    """The simulator alone, so that it never is what is measured."""
    with farm(1) as bench:
        port = int(bench.upstream.rpartition(":")[2])
        token = access_token(bench)
        result = asyncio.run(run(Load("127.0.0.1", port, token, 20, 5)))
        return [at_least("simulator", "requests/s without delay", result.rate, 5000), *well("simulator", bench, result)]


def access_token(bench: Bench) -> str:
    """An access token straight from the simulator."""
    data = f"grant_type=refresh_token&refresh_token={Accounts(1).first_tokens()[0]}".encode()
    with urllib.request.urlopen(f"{bench.upstream}/oauth/token", data=data) as answer:
        return str(json.load(answer)["access_token"])


SCENARIOS: dict[str, Callable[[float], list[Measured]]] = {
    "saturation": saturation,
    "streaming": streaming,
    "expiry": expiry,
    "thousand": thousand,
    "sharing": sharing,
    "overhead": overhead,
    "start": start,
    "simulator": simulator,
}
