"""A closed-loop load of chat completions over raw connections, every answer checked against its request; no farm in it.

It is lean, so that the load does not eat the cores that it measures.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from simulator.answers import translate

#: What is translated; each request adds its own number, so that no two answers are alike.
TEXT = "The queue holds every page until an account is free, and no two of them are ever mixed up. Request"


@dataclass
class Result:
    """What the clients saw."""

    seconds: float = 0.0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    #: When each answer ended, seconds after the start.
    ends: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Right answers per second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def busy_seconds(self, service: float, warm_up: float) -> float:
        """Upstream seconds that the answers took, each `service` long, inside the window after the warm-up.

        Counting whole answers would jump by as many as there are accounts, because they answer in step.
        """
        overlaps = (min(end, self.seconds) - max(end - service, warm_up) for end in self.ends)
        return sum(max(0.0, overlap) for overlap in overlaps)

    def percentile(self, share: float, values: list[float] | None = None) -> float:
        """A percentile of the latencies, in seconds."""
        ordered = sorted(self.latencies if values is None else values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True)
class Load:
    """How to load which endpoint."""

    host: str
    port: int
    key: str
    clients: int
    #: Seconds during which new requests are sent.
    seconds: float
    stream: bool = False
    model: str = "sim-translate"
    path: str = "/v1/chat/completions"
    #: Seconds after which a request counts as stuck.
    timeout: float = 60.0

    def request(self, text: str) -> bytes:
        """One request's bytes."""
        message = {"model": self.model, "stream": self.stream, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(message).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def run(load: Load) -> Result:
    """Runs the load to its end; every answer is checked, and those that end in its time count."""
    result = Result()
    started = time.perf_counter()
    until = started + load.seconds
    await asyncio.gather(*(client(load, number, until, result) for number in range(load.clients)))
    result.seconds = load.seconds
    return result


async def client(load: Load, number: int, until: float, result: Result) -> None:
    """One client: asks, checks, asks again; a broken connection is an error and is opened anew."""
    connection = None
    turn = 0
    while time.perf_counter() < until:
        turn += 1
        text = f"{TEXT} {number}.{turn}"
        began = time.perf_counter()
        try:
            if connection is None:
                connection = await asyncio.open_connection(load.host, load.port, limit=2**20)
            error, first = await asyncio.wait_for(ask(load, connection, text), load.timeout)
        except (OSError, EOFError, TimeoutError, ValueError) as failure:
            error, first = type(failure).__name__, 0.0
        ended = time.perf_counter()
        if error:
            result.errors[error] += 1
            if connection:
                connection[1].close()
            connection = None
            await asyncio.sleep(0.05)
            continue
        result.ends.append(ended - until + load.seconds)
        if ended <= until:
            result.answers += 1
            result.latencies.append(ended - began)
            result.first_bytes.append(first - began)
    if connection:
        connection[1].close()


async def ask(
    load: Load, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: str
) -> tuple[str, float]:
    """One request; returns what was wrong ('' when the answer is right) and when its head came."""
    reader, writer = connection
    writer.write(load.request(text))
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    first = time.perf_counter()
    status = head.split(" ", 2)[1]
    body = await read_body(reader, head)
    if status != "200":
        return f"status {status} {error_code(body)}", first
    answer = streamed_text(body) if load.stream else json.loads(body)["choices"][0]["message"]["content"]
    return ("" if answer == translate(text) else "wrong answer"), first


def error_code(body: bytes) -> str:
    """The code of an error answer."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


async def read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    """A body by Content-Length, or its chunks."""
    if "transfer-encoding: chunked" not in head:
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        return await reader.readexactly(length)
    parts: list[bytes] = []
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return b"".join(parts)
        parts.append(data[:-2])


def streamed_text(body: bytes) -> str:
    """The text of a streamed chat completion; 'cut' when its end is missing."""
    events = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return "cut"
    deltas = (json.loads(event) for event in events[:-1])
    return "".join(one["choices"][0]["delta"].get("content", "") for one in deltas if one["choices"])
