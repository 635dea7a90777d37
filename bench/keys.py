"""Checks of API keys: fair shares by weight, limits, quotas, and what they cost."""

import asyncio
import json
import tempfile
import threading
import time
import urllib.error
import urllib.request
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, at_most, exactly, unbounded
from bench.outcome import LoadResult

#: Start of a load that is left out of comparisons.
WARM_UP_SECONDS = 3.0
#: Weights of keys that share a farm.
WEIGHT_MIXES = ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5, "e": 5.0})
#: Every limit, set too high to reject anything.
LIMITS = ("--rpm", "100000000", "--tpm", "1000000000", "--concurrency", "100000", "--quota-requests", "1000000000")
TOKEN_QUOTA = ("--quota-tokens", "100000000000", "--quota-reset", "monthly")


def create_key(farm: MeasuredFarm, name: str, *options: str) -> dict[str, Any]:
    """Creates an API key; returns its `id`, its secret as `key`, and the rest of the command's JSON."""
    key: dict[str, Any] = json.loads(farm.run_command("keys", "create", "--name", name, "--json", *options))
    return key


async def load_with_keys(farm: MeasuredFarm, seconds: float, clients: Mapping[str, int]) -> dict[str, LoadResult]:
    """Loads the farm with several keys at once; `clients` maps a key's secret to its number of clients."""
    loads = [run_load(Load("127.0.0.1", farm.port, secret, count, seconds)) for secret, count in clients.items()]
    return dict(zip(clients, await asyncio.gather(*loads), strict=True))


def measure_fairness(seconds: float) -> list[Measurement]:
    """Keys that share 20 accounts with responses of 0.5 s: a newcomer's wait, shares by weight, a single key, batch."""
    measurements: list[Measurement] = []
    with run_farm(20, "--delay", "0.5") as farm:
        measurements.append(asyncio.run(measure_newcomer(farm)))
        measurements += [measure_shares(farm, weights, seconds) for weights in WEIGHT_MIXES]
        alone = create_key(farm, "alone")["key"]
        result = asyncio.run(load_with_keys(farm, seconds, {alone: 60}))[alone]
        share = result.busy_seconds(0.5, WARM_UP_SECONDS) / (seconds - WARM_UP_SECONDS) / 20
        measurements.append(at_least("fairness", "utilisation with one key alone", share, 0.98))
        collisions = farm.upstream.read_counters()["collisions"]
        measurements.append(exactly("fairness", "collisions at the upstream", collisions))
    with run_farm(20, "--delay", "0.5", FARM_BATCH_AGE="1", FARM_BATCH_TURNS="10") as farm:
        share = measure_batch_share(farm, seconds)
        name = "share of batch, due one turn of ten, beside interactive"
        measurements += [at_least("fairness", name, share, 0.09), at_most("fairness", name, share, 0.11)]
    return measurements


async def measure_newcomer(farm: MeasuredFarm) -> Measurement:
    """How long 20 requests of one key wait while another key has a thousand queued."""
    bulk, new = create_key(farm, "bulk")["key"], create_key(farm, "new")["key"]
    background = asyncio.create_task(run_load(Load("127.0.0.1", farm.port, bulk, 1020, 12.0)))
    await asyncio.sleep(4)
    result = await run_load(Load("127.0.0.1", farm.port, new, 20, 0.05))
    await background
    wait = result.percentile(0.95, [record.ended - record.started for record in result.records]) - 0.5
    return at_most("fairness", "seconds that 20 requests wait beside another's thousand, p95", wait, 1.5)


def measure_shares(farm: MeasuredFarm, weights: Mapping[str, float], seconds: float) -> Measurement:
    """How far the shares of keys with a backlog deviate from their weights."""
    secrets = {name: create_key(farm, name, "--weight", str(weight))["key"] for name, weight in weights.items()}
    clients = dict.fromkeys(secrets.values(), 60)
    results = asyncio.run(load_with_keys(farm, seconds + WARM_UP_SECONDS, clients))
    busy = {name: results[secret].busy_seconds(0.5, WARM_UP_SECONDS) for name, secret in secrets.items()}
    total, total_weight = sum(busy.values()), sum(weights.values())
    worst = max(abs(busy[name] / total / (weight / total_weight) - 1) for name, weight in weights.items())
    ratio = ":".join(f"{weight:g}" for weight in weights.values())
    return at_most("fairness", f"shares of {ratio}, farthest from the weight", worst, 0.05)


def measure_batch_share(farm: MeasuredFarm, seconds: float) -> float:
    """The share of batch requests while interactive requests are queued."""
    batch = create_key(farm, "batch", "--band", "batch")["key"]
    interactive = create_key(farm, "interactive")["key"]
    clients = {batch: 60, interactive: 60}
    results = asyncio.run(load_with_keys(farm, seconds + WARM_UP_SECONDS, clients))
    busy = {secret: result.busy_seconds(0.5, WARM_UP_SECONDS) for secret, result in results.items()}
    return busy[batch] / sum(busy.values())


def measure_limits(seconds: float) -> list[Measurement]:
    """A key with rpm=600 and concurrency=10 under 200 clients on four fronts, for 75 s."""
    with run_farm(20, "--delay", "0.05", WEB_CONCURRENCY="4") as farm:
        key = create_key(farm, "bound", "--rpm", "600", "--concurrency", "10")
        in_flight = [0]
        finished = threading.Event()

        def sample_in_flight() -> None:
            while not finished.wait(0.02):
                in_flight.append(farm.upstream.read_counters()["in_flight"])

        sampler = threading.Thread(target=sample_in_flight)
        sampler.start()
        result = asyncio.run(run_load(Load("127.0.0.1", farm.port, key["key"], 200, 75.0)))
        finished.set()
        sampler.join()
        admitted = count_fullest_minute(farm, key["id"])
        others = {name: n for name, n in result.errors.items() if name != "status 429 rate_limit_exceeded"}
        return [
            at_most("limits", "requests in flight, most", max(in_flight), 10),
            at_least("limits", "requests admitted in a minute (rpm 600)", admitted, 594),
            at_most("limits", "requests admitted in a minute (rpm 600)", admitted, 606),
            exactly("limits", f"errors beside the limit's {others or ''}".strip(), sum(others.values())),
        ]


def count_fullest_minute(farm: MeasuredFarm, key_id: str) -> int:
    """The most requests of the key that were started in any minute, by the times in the request log.

    The clients' times would not do: a request may wait for minutes until its key's limits let it start. It is counted
    a moment before it starts, later on a busy machine, so a second less than a minute is looked at.
    """
    log = json.loads(farm.run_command("requests", "--key", key_id, "-n", "1000000", "--json"))
    admitted = sorted(
        entry["time"] - (entry["total_ms"] - entry["queue_ms"]) / 1000 for entry in log if entry["status"] == 200
    )
    return max(bisect_left(admitted, start + 59) - index for index, start in enumerate(admitted))


def measure_quota(seconds: float) -> list[Measurement]:
    """A quota of 10,000 tokens under 100 clients: overshoot, and whether all token counts agree."""
    with run_farm(20, "--delay", "0.1") as farm:
        key = create_key(farm, "bound", "--quota-tokens", "10000")
        result = asyncio.run(run_load(Load("127.0.0.1", farm.port, key["key"], 100, 10.0)))
        time.sleep(3)
        expected = farm.upstream.read_counters()["total_tokens"]
        (usage,) = json.loads(farm.run_command("usage", "--by", "", "--key", key["id"], "--json"))
        log = json.loads(farm.run_command("requests", "--key", key["id"], "-n", "100000", "--json"))
        logged = sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in log)
        counted = int(farm.redis.client.hget(f"farm:quota:{key['id']}", "tokens") or 0)
        # The prompt has about twenty words; the reservation for it is a few hundred tokens.
        return [
            at_most("quota", "tokens used of 10,000, one request's reservation above", counted, 10_600),
            exactly("quota", "log less the upstream's own count, tokens", logged - expected),
            exactly("quota", "sums less the upstream's own count, tokens", usage["total_tokens"] - expected),
            exactly("quota", "quota less the upstream's own count, tokens", counted - expected),
            unbounded("quota", f"answers, then refusals {dict(result.errors)}", result.completed),
        ]


def measure_cost(seconds: float) -> list[Measurement]:
    """CPU time that a request costs more when its key has every limit set; 50 clients, no delay, alternating runs."""
    with run_farm(100) as farm:
        limited = create_key(farm, "bound", *LIMITS, *TOKEN_QUOTA)["key"]
        costs: dict[str, list[float]] = {API_KEY: [], limited: []}
        for _ in range(3):
            for secret, values in costs.items():
                before = sum(farm.measure_cpu_seconds().values())
                result = asyncio.run(run_load(Load("127.0.0.1", farm.port, secret, 50, min(seconds, 6.0))))
                after = sum(farm.measure_cpu_seconds().values())
                values.append(1000 * (after - before) / len(result.end_times))
        plain, with_limits = (sorted(values)[1] for values in costs.values())
        return [
            unbounded("cost", "CPU ms per request of a key without limits", plain),
            at_most("cost", "CPU ms per request more with all limits set", with_limits - plain, 0.3),
        ]


def measure_import(seconds: float) -> list[Measurement]:
    """1,000 refresh tokens with blanks, duplicates, Windows line ends and a byte order mark."""
    with run_farm(1) as farm, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.txt"
        lines = [f"token-{number:05}" for number in range(1000)]
        file.write_bytes(("\ufeff" + "\r\n".join([*lines, "", "  ", *lines[:50], "not a token"]) + "\r\n").encode())
        started = time.monotonic()
        report = json.loads(farm.run_command("credentials", "import", str(file), "--json"))
        elapsed = time.monotonic() - started
        expected = {"added": 1000, "duplicates": 50, "blanks": 2, "invalid": 1}
        wrong = sum(report[name] != count for name, count in expected.items())
        return [
            at_most("importing", "seconds for 1,000 tokens", elapsed, 5.0),
            exactly("importing", "figures of the report that are wrong", wrong),
        ]


def measure_revocation(seconds: float) -> list[Measurement]:
    """Seconds until every front rejects a revoked key, while another key's load continues undisturbed."""
    with run_farm(20, "--delay", "0.1", WEB_CONCURRENCY="4") as farm:
        key = create_key(farm, "doomed")
        delays: list[float] = []

        def revoke() -> None:
            time.sleep(4)
            farm.run_command("keys", "revoke", key["id"])
            started = time.monotonic()
            refused = 0
            while refused < 40:
                refused = refused + 1 if request_status(farm, key["key"]) == 401 else 0
                time.sleep(0.01)
            delays.append(time.monotonic() - started)

        thread = threading.Thread(target=revoke)
        thread.start()
        result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, 40, 10.0)))
        thread.join()
        return [
            at_most("in-force", "seconds until a revoked key is refused by all", delays[0], 2.0),
            exactly("in-force", "errors at another key's clients", sum(result.errors.values())),
        ]


def request_status(farm: MeasuredFarm, secret: str) -> int:
    """The HTTP status of a chat completion with this key."""
    body = json.dumps({"model": "sim-translate", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{farm.port}/v1/chat/completions"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


KEY_CHECKS = {
    "fairness": measure_fairness,
    "limits": measure_limits,
    "quota": measure_quota,
    "cost": measure_cost,
    "importing": measure_import,
    "in-force": measure_revocation,
}
