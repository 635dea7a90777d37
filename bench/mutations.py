"""Fuzzes the farm with almost valid requests: none may cause a 5xx, a traceback or a hang."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

from bench.farm import API_KEY, run_farm
from bench.measurement import Measurement, exactly, unbounded

REQUEST_COUNT, CONCURRENCY = 10_000, 24
#: Seconds after which a request counts as stuck.
TIMEOUT_SECONDS = 20.0
PATHS = (
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "moderations",
    "audio/speech",
    "models",
    "nothing",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    2**63,
    10**40,
    "",
    "\ud800",
    "\x00",
    "a" * 5000,
    [],
    {},
    [[[[]]]],
    {"role": "user"},
    [None],
    "ﷺ" * 100,
)
FIELD_NAMES = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "service_tier"),
    *("input", "prompt", "temperature", "tools", "user", "metadata", "response_format"),
)
HEADERS = (
    "content-type: text/plain",
    "content-type: multipart/form-data; boundary=b",
    "content-type: multipart/form-data",
    "accept: \x7f",
    "x-forwarded-for: 1.2.3.4, ::1, nonsense",
    "idempotency-key: " + "k" * 3000,
    "transfer-encoding: chunked",
    "expect: 100-continue",
    "connection: close",
)


def encode_mutated_request(draw: random.Random, key: str) -> bytes:
    """A request with up to three odd fields in its body, and odd bytes, path, key or headers."""
    body: dict[str, Any] = {"model": "sim-translate", "messages": [{"role": "user", "content": "Hello"}]}
    for _ in range(draw.randint(0, 3)):
        body[draw.choice(FIELD_NAMES)] = draw.choice(ODD_VALUES)
    if draw.random() < 0.2:
        body["messages"] = [draw.choice(ODD_VALUES) for _ in range(3)]
    data = bytearray(json.dumps(body).encode())
    if draw.random() < 0.4:
        corrupt(data, draw)
    lines = [f"POST /v1/{draw.choice(PATHS)} HTTP/1.1", "host: farm", f"content-length: {len(data)}"]
    lines.append(f"authorization: Bearer {key if draw.random() < 0.95 else 'sk-' + 'x' * draw.randint(0, 40)}")
    lines += draw.sample(HEADERS, draw.randint(0, 2)) if draw.random() < 0.4 else ["content-type: application/json"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(data)


def corrupt(data: bytearray, draw: random.Random) -> None:
    """Changes, truncates, duplicates or inserts bytes in place, one to four times."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data)) if data else 0
        kind = draw.randrange(4)
        if kind == 0 and data:
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = data[at : at + 40]
        else:
            data[at:at] = bytes(draw.randrange(256) for _ in range(5))


async def send(port: int, request: bytes) -> str:
    """The response's status; `closed` when there is none, `STUCK` after the timeout."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS)
        return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"
    except TimeoutError:
        return "STUCK"
    except (OSError, IndexError):
        return "closed"
    finally:
        writer.close()


async def send_mutated_requests(port: int, key: str, count: int, seed: int = 1) -> Counter[str]:
    """Sends `count` mutated requests; counts their statuses."""
    statuses: Counter[str] = Counter()
    numbers = iter(range(count))

    async def run_client() -> None:
        for number in numbers:
            statuses[await send(port, encode_mutated_request(random.Random(f"{seed}.{number}"), key))] += 1

    await asyncio.gather(*(run_client() for _ in range(CONCURRENCY)))
    return statuses


def find_failures(statuses: Counter[str]) -> dict[str, int]:
    """The outcomes that no request may have: 5xx, `STUCK` and `closed`."""
    return {
        status: count for status, count in statuses.items() if status in ("STUCK", "closed") or status.startswith("5")
    }


def measure_mutated_requests(seconds: float, count: int = REQUEST_COUNT) -> list[Measurement]:
    """10,000 almost valid requests: their statuses."""
    with run_farm(20, FARM_MODELS="sim-*") as farm:
        statuses = asyncio.run(send_mutated_requests(farm.port, API_KEY, count))
        failures = find_failures(statuses)
        return [
            unbounded("mutated", f"answers {dict(sorted(statuses.items()))}", count),
            exactly("mutated", f"5xx or none {failures or ''}".strip(), sum(failures.values())),
            exactly("mutated", "tracebacks in the log", farm.read_log().count("Traceback")),
        ]
