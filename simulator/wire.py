"""HTTP/1.1 as lean as the simulator needs it: requests off a connection, answers onto it; it knows no API.

It reads requests with Content-Length, one at a time per connection, and keeps connections alive.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(slots=True)
class Request:
    """A request that has arrived whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> bytes:
    """A whole answer."""
    reason = REASONS.get(status, "Status")
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers (lower-case names) of a request's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, path, headers


class Connection(asyncio.Protocol):
    """One connection: hands each request to the handler and remembers what to undo when the client goes."""

    def __init__(self, handle: "Callable[[Connection, Request], None]") -> None:
        self._handle = handle
        self._buffer = b""
        self._busy = False
        self.transport: asyncio.Transport
        #: Called once when the request that runs ends, or when the client goes.
        self.on_end: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client is here."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client has gone."""
        self._undo()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes are here."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Takes the next request off the buffer, if it is there whole."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        try:
            method, path, headers = parse_head(self._buffer[:end])
            length = int(headers.get("content-length", 0))
        except ValueError:
            self.transport.close()
            return
        if len(self._buffer) < end + 4 + length:
            return
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        self._busy = True
        self._handle(self, Request(method, path, headers, body))

    def send(self, data: bytes) -> None:
        """A part of an answer."""
        self.transport.write(data)

    def finish(self, data: bytes) -> None:
        """The last part of an answer; the next request may come. The account is free before the bytes leave."""
        self._undo()
        self.transport.write(data)
        self._busy = False
        if self._buffer:
            self._next()

    def cut(self) -> None:
        """Breaks the connection off."""
        self.transport.abort()

    def _undo(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end:
            on_end()
