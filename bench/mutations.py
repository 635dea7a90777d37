"""Thousands of requests that are nearly right: none may find a 5xx, a traceback or an answer that does not come."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

from bench.farm import KEY, farm
from bench.measured import Measured, exactly, told

#: Requests, how many at once, and seconds after which one counts as stuck.
COUNT, AT_ONCE, PATIENCE = 10_000, 24, 20.0
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
ODD: tuple[Any, ...] = (
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
MEMBERS = (
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


def request(draw: random.Random, key: str) -> bytes:
    """One request, with up to three mistakes in its body and others around it."""
    body: dict[str, Any] = {"model": "sim-translate", "messages": [{"role": "user", "content": "Hello"}]}
    for _ in range(draw.randint(0, 3)):
        body[draw.choice(MEMBERS)] = draw.choice(ODD)
    if draw.random() < 0.2:
        body["messages"] = [draw.choice(ODD) for _ in range(3)]
    data = bytearray(json.dumps(body).encode())
    if draw.random() < 0.4:
        spoil(data, draw)
    lines = [f"POST /v1/{draw.choice(PATHS)} HTTP/1.1", "host: farm", f"content-length: {len(data)}"]
    lines.append(f"authorization: Bearer {key if draw.random() < 0.95 else 'sk-' + 'x' * draw.randint(0, 40)}")
    lines += draw.sample(HEADERS, draw.randint(0, 2)) if draw.random() < 0.4 else ["content-type: application/json"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(data)


def spoil(data: bytearray, draw: random.Random) -> None:
    """Bytes changed, cut, doubled or put in."""
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


async def ask(port: int, sent: bytes) -> str:
    """The status of the answer; `closed` without one, `STUCK` when none comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"
    except TimeoutError:
        return "STUCK"
    except (OSError, IndexError):
        return "closed"
    finally:
        writer.close()


async def storm(port: int, key: str, count: int, seed: int = 1) -> Counter[str]:
    """Statuses of so many requests."""
    found: Counter[str] = Counter()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            found[await ask(port, request(random.Random(f"{seed}.{number}"), key))] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return found


def failures(found: Counter[str]) -> dict[str, int]:
    """Statuses that no request may find."""
    return {status: count for status, count in found.items() if status == "STUCK" or status.startswith("5")}


def mutated(seconds: float, count: int = COUNT) -> list[Measured]:
    """10,000 requests with mistakes in them: what they find."""
    with farm(20) as bench:
        found = asyncio.run(storm(bench.port, KEY, count))
        bad = failures(found)
        return [
            told("mutated", f"answers {dict(sorted(found.items()))}", count),
            exactly("mutated", f"5xx or none {bad or ''}".strip(), sum(bad.values())),
            exactly("mutated", "tracebacks in the log", bench.log().count("Traceback")),
        ]
