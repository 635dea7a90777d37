"""Hostile requests without a key beside good callers: large forms and bodies, slow heads and bodies, floods."""

import asyncio
import subprocess
import sys
from collections import Counter

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, at_most, exactly, unbounded
from bench.simulator import ROOT

REQUEST_COUNT = 2000
#: Hostile requests at a time; slow ones are all open at once.
CONCURRENCY = 50
#: Seconds between two bytes of a slow request, and for which it goes on.
SLOW_INTERVAL_SECONDS, SLOW_SECONDS = 0.5, 10.0
GOOD_CLIENTS, ACCOUNTS = 20, 20
#: Seconds that a response takes at the upstream.
SERVICE_SECONDS = 0.5
FORM = "content-type: application/x-www-form-urlencoded\r\n"
RELAY = "POST /v1/chat/completions HTTP/1.1\r\nhost: farm\r\n"
LOGIN = f"POST /admin/login HTTP/1.1\r\nhost: farm\r\n{FORM}"


async def send_at_once(port: int, head: str, body: bytes) -> str:
    """Sends a request as fast as the farm reads it; returns the status of the response, `closed` if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 262_144):
            writer.write(body[at : at + 262_144])
            await writer.drain()
        return await read_status(reader)
    except OSError:
        return "closed"
    finally:
        writer.close()


async def send_slowly(port: int, head: str) -> str:
    """Sends a byte now and then, and gives up."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode())
        for _ in range(int(SLOW_SECONDS / SLOW_INTERVAL_SECONDS)):
            writer.write(b"x")
            await asyncio.sleep(SLOW_INTERVAL_SECONDS)
        return "slow"
    except OSError:
        return "closed"
    finally:
        writer.close()


async def read_status(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"


async def attack(port: int, count: int) -> Counter[str]:
    """Sends `count` hostile requests of five kinds; counts their statuses."""
    statuses: Counter[str] = Counter()
    form, body = b"a&" * 10_000_000, b"x" * 5_000_000
    fast = iter([(LOGIN, form), (RELAY, body), (RELAY, b"{}")] * (count // 5))

    async def run_client() -> None:
        for head, data in fast:
            statuses[await send_at_once(port, head, data)] += 1

    slow_body = f"{LOGIN}content-length: 100\r\n\r\n"
    slow = [send_slowly(port, head) for head in (slow_body, RELAY) for _ in range(count // 5)]
    results = await asyncio.gather(*(run_client() for _ in range(CONCURRENCY)), *slow)
    statuses.update(status for status in results if status)
    return statuses


def measure_hostile(seconds: float) -> list[Measurement]:
    """The wait of good callers without and with hostile requests, and the memory of the farm."""
    with run_farm(ACCOUNTS, "--delay", str(SERVICE_SECONDS), WEB_CONCURRENCY="1") as farm:
        alone = measure_p99(farm, seconds)
        command = [sys.executable, "-m", "bench.hostile", str(farm.port), str(REQUEST_COUNT)]
        attacker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        beside = measure_p99(farm, seconds)
        statuses, _ = attacker.communicate()
        memory = farm.measure_memory()
        return [
            unbounded("hostile", f"hostile requests {statuses.strip()}", REQUEST_COUNT),
            exactly("hostile", "errors of good callers", alone[1] + beside[1]),
            unbounded("hostile", "p99 of good callers alone (s)", alone[0]),
            at_most("hostile", "p99 of good callers beside them, of that alone", beside[0] / alone[0], 2),
            at_most("hostile", "MB PSS of the front afterwards", memory["front"], 400),
        ]


def measure_p99(farm: MeasuredFarm, seconds: float) -> tuple[float, int]:
    """Seconds to the end of the response at the 99th percentile, and errors, of the good callers."""
    result = asyncio.run(run_load(Load("127.0.0.1", farm.port, API_KEY, GOOD_CLIENTS, seconds)))
    return result.percentile(0.99), sum(result.errors.values())


if __name__ == "__main__":
    print(dict(asyncio.run(attack(int(sys.argv[1]), int(sys.argv[2])))))
