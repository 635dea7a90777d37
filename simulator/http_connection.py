"""A minimal HTTP/1.1 server connection.

It reads requests with Content-Length, handles one at a time per connection, and keeps connections alive.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REASONS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


@dataclass(slots=True)
class Request:
    """A complete HTTP request."""

    method: str
    path: str
    #: By lower-case name.
    headers: dict[str, str]
    body: bytes

    def bearer_token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def describe(self) -> dict[str, str]:
        """What came in which form, as text."""
        names = ("authorization", "content-type")
        return {"path": self.path, "body": self.body.decode("latin-1"), **{k: self.headers.get(k, "") for k in names}}

    def json(self) -> dict[str, Any] | None:
        """The body as a JSON object; None when it is not one."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def encode_response(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> bytes:
    """A complete HTTP response; `extra` holds more header lines, each with its CRLF."""
    reason = REASONS.get(status, "Status")
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers (by lower-case name) of a request head. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, path, headers


class Connection(asyncio.Protocol):
    """One connection, which passes each complete request to the handler."""

    def __init__(self, handle: "Callable[[Connection, Request], None]") -> None:
        self._handle = handle
        self._buffer = bytearray()
        self._is_busy = False
        self.transport: asyncio.Transport
        #: Called once, when the request in flight ends or the client disconnects.
        self.on_end: Callable[[], None] | None = None
        #: Header lines to add to the next response, each with its CRLF, as of the moment at which it begins.
        self.extra_headers: Callable[[], str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_request()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_busy:
            self._handle_next()

    def _handle_next(self) -> None:
        """Takes the next request off the buffer, if it is complete, and passes it to the handler."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        try:
            method, path, headers = parse_head(bytes(self._buffer[:end]))
            length = int(headers.get("content-length", 0))
        except ValueError:
            self.transport.close()
            return
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._is_busy = True
        self._handle(self, Request(method, path, headers, body))

    def send(self, data: bytes) -> None:
        """Sends a part of the response."""
        self.transport.write(self._add_headers(data))

    def finish(self, data: bytes) -> None:
        """Sends the last part of the response and continues with the next request.

        `on_end` runs before the bytes leave, so the account is free when the client sees the end of the response.
        """
        self._end_request()
        self.transport.write(self._add_headers(data))
        self._is_busy = False
        if self._buffer:
            self._handle_next()

    def _add_headers(self, data: bytes) -> bytes:
        """Adds the extra headers behind the status line of a response that begins with this data."""
        if self.extra_headers is None:
            return data
        lines, self.extra_headers = self.extra_headers(), None
        return data.replace(b"\r\n", b"\r\n" + lines.encode(), 1)

    def abort(self) -> None:
        self.transport.abort()

    def _end_request(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end:
            on_end()
