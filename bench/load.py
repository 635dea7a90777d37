"""A closed-loop load of chat completions over raw connections, every answer checked against its request; no farm in it.

It is lean, so that the load does not eat the cores that it measures. Every request is accounted for by one outcome.
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.outcome import BROKEN, LEFT, MIXED, RIGHT, STUCK, TRUNCATED, Record, Result
from simulator.responses import translate

#: What is translated; each request adds its own number, so that no two answers are alike.
TEXT = "The queue holds every page until an account is free, and no two of them are ever mixed up. Request"
#: The end of a stream.
DONE = b"data: [DONE]\n\n"


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
    #: Share of the requests whose client leaves within `leave_within` seconds, by a draw from the seed.
    leave: float = 0.0
    leave_within: float = 4.0
    seed: int = 1
    #: Headers beside the usual ones.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the time between two events of a stream is kept.
    traced: bool = False

    def request(self, text: str) -> bytes:
        """One request's bytes."""
        message = {"model": self.model, "stream": self.stream, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(message).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n"
        return head.encode() + body


async def run(load: Load) -> Result:
    """Runs the load to its end; every answer is checked, and those that end in its time count."""
    result = Result(seconds=load.seconds, started=time.time())
    started = time.perf_counter()
    over: list[Exchange] = []
    await asyncio.gather(*(client(load, number, started, over) for number in range(load.clients)))
    for exchange in over:
        exchange.settle()
        result.add(exchange.record)
    return result


async def client(load: Load, number: int, started: float, over: "list[Exchange]") -> None:
    """One client: asks, checks, asks again; a broken connection is opened anew."""
    connection = None
    turn = 0
    draw = random.Random(f"{load.seed}.{number}")
    while time.perf_counter() < started + load.seconds:
        turn += 1
        record = Record(time.perf_counter() - started)
        exchange = Exchange(load, f"{TEXT} {number}.{turn}", started, record)
        patience = draw.uniform(0, load.leave_within) if draw.random() < load.leave else load.timeout
        connection = await one_request(exchange, connection, patience)
        record.ended = time.perf_counter() - started
        over.append(exchange)
        if record.outcome != RIGHT:
            await asyncio.sleep(0.05)
    if connection:
        connection[1].close()


Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def one_request(exchange: "Exchange", connection: Connected | None, patience: float) -> Connected | None:
    """One request over a connection, a new one if there is none; returns the connection if it may be used again."""
    load, record = exchange.load, exchange.record
    try:
        if connection is None:
            connection = await asyncio.open_connection(load.host, load.port, limit=2**20)
        record.outcome = await asyncio.wait_for(exchange.run(connection), patience)
    except TimeoutError:
        record.outcome = LEFT if patience < load.timeout else STUCK
        record.text = exchange.text
    except (OSError, EOFError, ValueError) as failure:
        record.outcome = exchange.broken(failure)
    if connection and (record.outcome != RIGHT or exchange.closes):
        connection[1].close()
        return None
    return connection


class Exchange:
    """One request and its answer, as far as it came."""

    def __init__(self, load: Load, text: str, started: float, record: Record) -> None:
        self.load = load
        self.text = text
        self._started = started
        self.record = record
        self._head = ""
        self._body = b""
        self._event_at = 0.0

    @property
    def closes(self) -> bool:
        """Whether the server said that the connection ends with this answer."""
        return "\r\nconnection: close" in self._head

    async def run(self, connection: Connected) -> str:
        """Sends and reads; returns the outcome."""
        reader, writer = connection
        writer.write(self.load.request(self.text))
        self._head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await self._read_body(reader)
        if self._is_for_later:
            return RIGHT
        outcome, self._body = self._judge(), b""
        return outcome

    @property
    def _is_for_later(self) -> bool:
        """Whether it seems right, and costs too much to judge while the load runs: a stream with its end."""
        return self.load.stream and self._head.split(" ", 2)[1] == "200" and self._body.endswith(DONE)

    def settle(self) -> None:
        """Judges what was left for later."""
        if self.record.outcome == RIGHT and self._is_for_later:
            self.record.outcome = self._judge()

    async def _read_body(self, reader: asyncio.StreamReader) -> None:
        """A body by Content-Length, or its chunks."""
        if "transfer-encoding: chunked" not in self._head:
            length = int(self._head.split("content-length:", 1)[1].split("\r\n", 1)[0])
            self._take(await reader.readexactly(length))
            return
        came = b""
        while True:
            end = came.find(b"\r\n")
            size = int(came[:end], 16) if end >= 0 else 0
            whole = end + 2 + size + 2
            if end < 0 or len(came) < whole:
                data = await reader.read(65_536)
                if not data:
                    raise EOFError
                came += data
                continue
            if size == 0:
                return
            self._take(came[end + 2 : whole - 2])
            came = came[whole:]

    def _take(self, data: bytes) -> None:
        self.record.first = self.record.first or time.perf_counter() - self._started
        self._body += data
        if self.load.traced and (events := data.count(b"\n\n")):
            self._trace(events)

    def _trace(self, events: int) -> None:
        """So many events have come."""
        now = time.perf_counter()
        if self._event_at:
            self.record.gaps += [now - self._event_at, *[0.0] * (events - 1)]
        self._event_at = now

    def _judge(self) -> str:
        status = self._head.split(" ", 2)[1]
        if status != "200":
            return f"status {status} {error_code(self._body)}"
        wanted = translate(self.text)
        if not self.load.stream:
            answer = json.loads(self._body)["choices"][0]["message"]["content"]
            return RIGHT if answer == wanted else MIXED
        text, end = streamed(self._body)
        if not wanted.startswith(text):
            return MIXED
        if end == "[DONE]":
            return RIGHT if text == wanted else TRUNCATED
        code = error_code(end.encode())
        return f"error event {code}" if code else TRUNCATED

    def broken(self, failure: Exception) -> str:
        """The outcome when the connection broke, or something that is no answer came."""
        if isinstance(failure, ValueError):
            return MIXED
        if not self.load.stream or not self._body:
            return f"{BROKEN} {type(failure).__name__}"
        text, _ = streamed(self._body)
        return f"{BROKEN} in mid-stream" if translate(self.text).startswith(text) else MIXED


def error_code(body: bytes) -> str:
    """The code of an error, '' when the body is none."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error.get("type") or error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def streamed(body: bytes) -> tuple[str, str]:
    """The text of a streamed chat completion, and its last event if that is no chunk: `[DONE]`, an error, or ''."""
    text, end = "", ""
    for part in body.split(b"\n\n")[:-1]:
        if not part.startswith(b"data: "):
            continue
        event = part[6:].decode()
        if event == "[DONE]" or '"choices"' not in event:
            end = event
            continue
        choices = json.loads(event)["choices"]
        text += choices[0]["delta"].get("content", "") if choices else ""
    return text, end
