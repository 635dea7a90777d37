"""What API keys have to show: shares by weight, limits and quotas that hold, what they cost; answers are checked."""

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

from bench.farm import KEY, Bench, farm
from bench.load import Load, run
from bench.measured import Measured, at_least, at_most, exactly, told
from bench.outcome import Result

#: Seconds of a load that are left out of what is compared.
WARM_UP = 3.0
#: Weights of the keys that share a farm.
MIXES = ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5, "e": 5.0})
ALL_LIMITS = ("--rpm", "100000000", "--tpm", "1000000000", "--concurrency", "100000", "--quota-requests", "1000000000")
TOKENS = ("--quota-tokens", "100000000000", "--quota-reset", "monthly")


def key(bench: Bench, name: str, *options: str) -> dict[str, Any]:
    """A new API key with these options."""
    made: dict[str, Any] = json.loads(bench.command("keys", "create", "--name", name, "--json", *options))
    return made


async def together(bench: Bench, seconds: float, clients: Mapping[str, int]) -> dict[str, Result]:
    """So many clients for each key, all at once."""
    loads = [run(Load("127.0.0.1", bench.port, secret, count, seconds)) for secret, count in clients.items()]
    return dict(zip(clients, await asyncio.gather(*loads), strict=True))


def fairness(seconds: float) -> list[Measured]:
    """Keys that share 20 accounts with answers of 0.5 s: a newcomer's wait, shares by weight, one alone, batch."""
    found: list[Measured] = []
    with farm(20, "--delay", "0.5") as bench:
        found.append(asyncio.run(newcomer(bench)))
        found += [shares(bench, weights, seconds) for weights in MIXES]
        alone = key(bench, "alone")["key"]
        result = asyncio.run(together(bench, seconds, {alone: 60}))[alone]
        share = result.busy_seconds(0.5, WARM_UP) / (seconds - WARM_UP) / 20
        found.append(at_least("fairness", "utilisation with one key alone", share, 0.98))
        found.append(exactly("fairness", "collisions at the upstream", bench.upstream.counters()["collisions"]))
    with farm(20, "--delay", "0.5", FARM_BATCH_AGE="1", FARM_BATCH_TURNS="10") as bench:
        share = batch_share(bench, seconds)
        found.append(at_least("fairness", "share of batch, due one turn of ten, beside interactive", share, 0.09))
        found.append(at_most("fairness", "share of batch, due one turn of ten, beside interactive", share, 0.11))
    return found


async def newcomer(bench: Bench) -> Measured:
    """How long 20 requests of one key wait beside a thousand of another."""
    bulk, new = key(bench, "bulk")["key"], key(bench, "new")["key"]
    behind = asyncio.create_task(run(Load("127.0.0.1", bench.port, bulk, 1020, 12.0)))
    await asyncio.sleep(4)
    result = await run(Load("127.0.0.1", bench.port, new, 20, 0.05))
    await behind
    waited = result.percentile(0.95, [one.ended - one.began for one in result.records]) - 0.5
    return at_most("fairness", "seconds that 20 requests wait beside another's thousand, p95", waited, 1.5)


def shares(bench: Bench, weights: Mapping[str, float], seconds: float) -> Measured:
    """How far the shares of keys that all have requests waiting are from their weights."""
    secrets = {name: key(bench, name, "--weight", str(weight))["key"] for name, weight in weights.items()}
    results = asyncio.run(together(bench, seconds + WARM_UP, dict.fromkeys(secrets.values(), 60)))
    busy = {name: results[secret].busy_seconds(0.5, WARM_UP) for name, secret in secrets.items()}
    total, sum_of_weights = sum(busy.values()), sum(weights.values())
    worst = max(abs(busy[name] / total / (weight / sum_of_weights) - 1) for name, weight in weights.items())
    words = ":".join(f"{weight:g}" for weight in weights.values())
    return at_most("fairness", f"shares of {words}, farthest from the weight", worst, 0.05)


def batch_share(bench: Bench, seconds: float) -> float:
    """The share of batch requests while interactive ones wait."""
    batch, interactive = key(bench, "batch", "--band", "batch")["key"], key(bench, "interactive")["key"]
    results = asyncio.run(together(bench, seconds + WARM_UP, {batch: 60, interactive: 60}))
    busy = {secret: result.busy_seconds(0.5, WARM_UP) for secret, result in results.items()}
    return busy[batch] / sum(busy.values())


def limits(seconds: float) -> list[Measured]:
    """A key with rpm=600 and concurrency=10 under 200 clients on four fronts, for a bit more than a minute."""
    with farm(20, "--delay", "0.05", WEB_CONCURRENCY="4") as bench:
        bound = key(bench, "bound", "--rpm", "600", "--concurrency", "10")
        peaks = [0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                peaks.append(bench.upstream.counters()["in_flight"])

        watcher = threading.Thread(target=watch)
        watcher.start()
        result = asyncio.run(run(Load("127.0.0.1", bench.port, bound["key"], 200, 75.0)))
        ended.set()
        watcher.join()
        admitted = most_in_a_minute(bench, bound["id"])
        others = {name: n for name, n in result.errors.items() if name != "status 429 rate_limit_exceeded"}
        return [
            at_most("limits", "requests in flight, most", max(peaks), 10),
            at_least("limits", "requests admitted in a minute (rpm 600)", admitted, 594),
            at_most("limits", "requests admitted in a minute (rpm 600)", admitted, 606),
            exactly("limits", f"errors beside the limit's {others or ''}".strip(), sum(others.values())),
        ]


def most_in_a_minute(bench: Bench, key_id: str) -> int:
    """Requests of the key that were admitted in the fullest minute; when, the request log tells to the millisecond.

    A client knows only when it has sent one, which may be long before on a farm that refuses a thousand a second.
    """
    log = json.loads(bench.command("requests", "--key", key_id, "-n", "1000000", "--json"))
    admitted = sorted(one["time"] - one["total_ms"] / 1000 for one in log if one["status"] == 200)
    return max(bisect_left(admitted, at + 60) - place for place, at in enumerate(admitted))


def quota(seconds: float) -> list[Measured]:
    """A quota of 10,000 tokens under 100 clients: overshoot, and whether all counts say the same."""
    with farm(20, "--delay", "0.1") as bench:
        made = key(bench, "bound", "--quota-tokens", "10000")
        result = asyncio.run(run(Load("127.0.0.1", bench.port, made["key"], 100, 10.0)))
        time.sleep(3)
        truth = bench.upstream.counters()["total_tokens"]
        (usage,) = json.loads(bench.command("usage", "--by", "", "--key", made["id"], "--json"))
        log = json.loads(bench.command("requests", "--key", made["id"], "-n", "100000", "--json"))
        logged = sum(one["prompt_tokens"] + one["completion_tokens"] for one in log)
        counted = int(bench.redis.client.hget(f"farm:quota:{made['id']}", "tokens") or 0)
        # The text has about twenty words; what is reserved for it is a few hundred tokens.
        return [
            at_most("quota", "tokens used of 10,000, one request's reservation above", counted, 10_600),
            exactly("quota", "log less the upstream's own count, tokens", logged - truth),
            exactly("quota", "sums less the upstream's own count, tokens", usage["total_tokens"] - truth),
            exactly("quota", "quota less the upstream's own count, tokens", counted - truth),
            told("quota", f"answers, then refusals {dict(result.errors)}", result.answers),
        ]


def cost(seconds: float) -> list[Measured]:
    """What a request costs more when its key has every limit set; 50 clients, no delay, by turns."""
    with farm(100) as bench:
        bound = key(bench, "bound", *ALL_LIMITS, *TOKENS)["key"]
        spent: dict[str, list[float]] = {KEY: [], bound: []}
        for _ in range(3):
            for secret, values in spent.items():
                before = sum(bench.cpu_seconds().values())
                result = asyncio.run(run(Load("127.0.0.1", bench.port, secret, 50, min(seconds, 6.0))))
                after = sum(bench.cpu_seconds().values())
                values.append(1000 * (after - before) / len(result.ends))
        plain, with_limits = (sorted(values)[1] for values in spent.values())
        return [
            told("cost", "CPU ms per request of a key without limits", plain),
            at_most("cost", "CPU ms per request more with all limits set", with_limits - plain, 0.3),
        ]


def importing(seconds: float) -> list[Measured]:
    """1,000 refresh tokens with blanks, duplicates, Windows line ends and a byte order mark."""
    with farm(1) as bench, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.txt"
        lines = [f"token-{number:05}" for number in range(1000)]
        file.write_bytes(("\ufeff" + "\r\n".join([*lines, "", "  ", *lines[:50], "not a token"]) + "\r\n").encode())
        began = time.monotonic()
        report = json.loads(bench.command("credentials", "import", str(file), "--json"))
        taken = time.monotonic() - began
        expected = {"added": 1000, "duplicates": 50, "blanks": 2, "invalid": 1}
        wrong = sum(report[name] != count for name, count in expected.items())
        return [
            at_most("importing", "seconds for 1,000 tokens", taken, 5.0),
            exactly("importing", "figures of the report that are wrong", wrong),
        ]


def in_force(seconds: float) -> list[Measured]:
    """Seconds until every process refuses a key that was revoked, under the load of another that notices nothing."""
    with farm(20, "--delay", "0.1", WEB_CONCURRENCY="4") as bench:
        made = key(bench, "doomed")
        found: list[float] = []

        def revoke() -> None:
            time.sleep(4)
            bench.command("keys", "revoke", made["id"])
            began = time.monotonic()
            refused = 0
            while refused < 40:
                refused = refused + 1 if status(bench, made["key"]) == 401 else 0
                time.sleep(0.01)
            found.append(time.monotonic() - began)

        thread = threading.Thread(target=revoke)
        thread.start()
        result = asyncio.run(run(Load("127.0.0.1", bench.port, KEY, 40, 10.0)))
        thread.join()
        return [
            at_most("in-force", "seconds until a revoked key is refused by all", found[0], 2.0),
            exactly("in-force", "errors at another key's clients", sum(result.errors.values())),
        ]


def status(bench: Bench, secret: str) -> int:
    """What the farm says to a key that asks for the models."""
    body = json.dumps({"model": "sim-translate", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{bench.port}/v1/chat/completions"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


KEY_CHECKS = {
    "fairness": fairness,
    "limits": limits,
    "quota": quota,
    "cost": cost,
    "importing": importing,
    "in-force": in_force,
}
