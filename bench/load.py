"""A closed-loop load of chat completions over raw connections, with every response checked against its request.

It is kept cheap, because it shares the cores with what it measures. Every request ends with exactly one outcome.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from bench.outcome import BROKEN, CORRECT, LEFT, MIXED, STUCK, TRUNCATED, LoadResult, RequestRecord
from simulator.responses import translate

#: Start of every prompt; each request appends its own number, so that no two responses are alike.
PROMPT = "The queue holds every page until an account is free, and no two of them are ever mixed up. Request"
#: The last event of a stream.
DONE = b"data: [DONE]\n\n"

#: Reader and writer of a connection.
OpenConnection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Load:
    """An endpoint and the load to put on it."""

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
    #: Share of the requests whose client leaves at a random time, within `leave_within` seconds.
    leave: float = 0.0
    leave_within: float = 4.0
    seed: int = 1
    #: Number of the first client, part of its prompts: loads at the same time need different ones.
    first_client: int = 0
    #: Additional request headers.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the gaps between the events of a stream are recorded.
    is_traced: bool = False
    #: The file to trust when the endpoint speaks HTTPS; '' for plain HTTP.
    certificate: str = ""

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None

    def encode_request(self, text: str) -> bytes:
        """The HTTP request with this prompt."""
        message = {"model": self.model, "stream": self.stream, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(message).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n"
        return head.encode() + body


async def run_load(load: Load) -> LoadResult:
    """Runs the load until every client has finished its last request."""
    result = LoadResult(seconds=load.seconds, started_at=time.time())
    started = time.perf_counter()
    finished: list[Exchange] = []
    numbers = range(load.first_client, load.first_client + load.clients)
    await asyncio.gather(*(run_client(load, number, started, finished) for number in numbers))
    for exchange in finished:
        exchange.judge_deferred()
        result.add(exchange.record)
    return result


async def run_client(load: Load, number: int, started: float, finished: "list[Exchange]") -> None:
    """Sends one request after another, reconnecting when the connection breaks."""
    connection = None
    count = 0
    draw = random.Random(f"{load.seed}.{number}")
    while time.perf_counter() < started + load.seconds:
        count += 1
        record = RequestRecord(time.perf_counter() - started)
        exchange = Exchange(load, f"{PROMPT} {number}.{count}", started, record)
        patience = draw.uniform(0, load.leave_within) if draw.random() < load.leave else load.timeout
        connection = await send_request(exchange, connection, patience)
        record.ended = time.perf_counter() - started
        finished.append(exchange)
        if record.outcome != CORRECT:
            await asyncio.sleep(0.05)
    if connection:
        connection[1].close()


async def send_request(
    exchange: "Exchange", connection: OpenConnection | None, patience: float
) -> OpenConnection | None:
    """Performs one exchange, over a new connection if there is none; returns the connection if it is reusable."""
    load, record = exchange.load, exchange.record
    try:
        if connection is None:
            connection = await asyncio.open_connection(load.host, load.port, limit=2**20, ssl=load.tls)
        record.outcome = await asyncio.wait_for(exchange.run(connection), patience)
    except TimeoutError:
        record.outcome = LEFT if patience < load.timeout else STUCK
        record.text = exchange.text
    except (OSError, EOFError, ValueError) as error:
        record.outcome = exchange.classify_failure(error)
    if connection and (record.outcome != CORRECT or exchange.closes_connection):
        connection[1].close()
        return None
    return connection


class Exchange:
    """One request and as much of its response as has arrived."""

    def __init__(self, load: Load, text: str, started: float, record: RequestRecord) -> None:
        self.load = load
        self.text = text
        self._started = started
        self.record = record
        self._head = ""
        self._body = b""
        self._last_event_at = 0.0

    @property
    def closes_connection(self) -> bool:
        return "\r\nconnection: close" in self._head

    async def run(self, connection: OpenConnection) -> str:
        """Sends the request and reads the response; returns the outcome.

        Raises OSError or EOFError when the connection breaks, ValueError when the response makes no sense.
        """
        reader, writer = connection
        writer.write(self.load.encode_request(self.text))
        self._head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await self._read_body(reader)
        if self._is_deferred:
            return CORRECT
        outcome, self._body = self._judge(), b""
        return outcome

    @property
    def _is_deferred(self) -> bool:
        """Whether it is a stream that came to its end: judging it would cost too much while the load runs."""
        return self.load.stream and self._head.split(" ", 2)[1] == "200" and self._body.endswith(DONE)

    def judge_deferred(self) -> None:
        """Judges the response now if that was deferred."""
        if self.record.outcome == CORRECT and self._is_deferred:
            self.record.outcome = self._judge()

    async def _read_body(self, reader: asyncio.StreamReader) -> None:
        """Reads a body with Content-Length or in chunks."""
        if "transfer-encoding: chunked" not in self._head:
            length = int(self._head.split("content-length:", 1)[1].split("\r\n", 1)[0])
            self._receive(await reader.readexactly(length))
            return
        buffer = b""
        while True:
            end = buffer.find(b"\r\n")
            size = int(buffer[:end], 16) if end >= 0 else 0
            chunk_end = end + 2 + size + 2
            if end < 0 or len(buffer) < chunk_end:
                data = await reader.read(65_536)
                if not data:
                    raise EOFError
                buffer += data
                continue
            if size == 0:
                return
            self._receive(buffer[end + 2 : chunk_end - 2])
            buffer = buffer[chunk_end:]

    def _receive(self, data: bytes) -> None:
        self.record.first_byte = self.record.first_byte or time.perf_counter() - self._started
        self._body += data
        if self.load.is_traced and (events := data.count(b"\n\n")):
            self._record_gaps(events)

    def _record_gaps(self, events: int) -> None:
        """Records the gap before events that arrived together."""
        now = time.perf_counter()
        if self._last_event_at:
            self.record.gaps += [now - self._last_event_at, *[0.0] * (events - 1)]
        self._last_event_at = now

    def _judge(self) -> str:
        """The outcome of a complete response. Raises ValueError when a body is not the expected JSON."""
        status = self._head.split(" ", 2)[1]
        if status != "200":
            return f"status {status} {parse_error_code(self._body)}"
        expected = translate(self.text)
        if not self.load.stream:
            content = json.loads(self._body)["choices"][0]["message"]["content"]
            return CORRECT if content == expected else MIXED
        text, end = parse_stream(self._body)
        if not expected.startswith(text):
            return MIXED
        if end == "[DONE]":
            return CORRECT if text == expected else TRUNCATED
        code = parse_error_code(end.encode())
        return f"error event {code}" if code else TRUNCATED

    def classify_failure(self, error: Exception) -> str:
        """The outcome when the connection broke, or the response made no sense."""
        if isinstance(error, ValueError):
            return MIXED
        if not self.load.stream or not self._body:
            return f"{BROKEN} {type(error).__name__}"
        text, _ = parse_stream(self._body)
        return f"{BROKEN} in mid-stream" if translate(self.text).startswith(text) else MIXED


def parse_error_code(body: bytes) -> str:
    """The code of an error body, '' when the body is not an error."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error.get("type") or error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def parse_stream(body: bytes) -> tuple[str, str]:
    """The text of a streamed chat completion, and the last event that is not a chunk: `[DONE]`, an error, or ''."""
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
