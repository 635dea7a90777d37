"""HTTP/1.1 responses to GET and POST, parsed with llhttp.

llhttp is Node's parser, in C. It parses heads and chunks (RFC 9112) in a fraction of the time that http.client and
urllib3 need, and it tells complete bodies from truncated ones.
"""

from http.client import BadStatusLine, LineTooLong, RemoteDisconnected
from typing import Any

import gevent
from gevent import socket
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from urllib3 import BaseHTTPResponse, HTTPHeaderDict
from urllib3.exceptions import ProtocolError

#: Bytes of one read at most.
READ_BYTES = 65_536
#: gevent's flag for a readable socket.
READ_EVENT = 1
#: Bytes of a response's head at most.
MAX_HEAD_BYTES = 262_144


class ParserEvents:
    """Collects what the parser reports of one response, and ignores what follows its end."""

    def __init__(self) -> None:
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        #: Parts of the body that have not been read yet.
        self.body: list[bytes] = []
        self.status = 0
        #: Whether the head is complete, and whether the response is.
        self.has_head = self.is_complete = False
        #: Whether another request may be sent over the connection.
        self.keeps_alive = False
        #: None once the response is released: parser and listener refer to each other, and such a cycle would stay in
        #: memory until the garbage collector runs.
        self.parser: Any = HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """httptools: a response begins, which may be an unexpected second one."""
        self.keeps_alive = False

    def on_status(self, reason: bytes) -> None:
        """httptools: part of the reason phrase."""
        self.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header; trailers are dropped."""
        if not self.has_head:
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """httptools: the end of a head; a 1xx is skipped."""
        if self.has_head:
            return
        self.status = self.parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            self.reason = ""
            return
        self.has_head = True
        self.keeps_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """httptools: part of the body."""
        if not self.is_complete:
            self.body.append(data)

    def on_message_complete(self) -> None:
        """httptools: the end of a response."""
        self.is_complete = self.has_head

    def feed(self, data: bytes) -> None:
        """Parses bytes. Raises HttpParserError or HttpParserUpgrade for invalid ones.

        After the end of the response they only keep the connection from being reused.
        """
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.keeps_alive = False
            if not self.is_complete:
                raise


class LlhttpResponse(BaseHTTPResponse):
    """One response. http.client creates it and calls `begin`; urllib3 sets its connection and pool."""

    #: http.client: whether to close the connection after the response; `_release` does that here.
    will_close = False
    #: urllib3: the connection, and the pool to which it is returned.
    _connection: Any = None
    _pool: Any = None
    #: Names of the headers, in lower case.
    header_names: frozenset[str] = frozenset()

    def __init__(self, sock: Any, method: str | None = None) -> None:
        self._sock = sock
        self._events = ParserEvents()
        self._is_closed = False
        #: Why the rest of the response can't be parsed, '' while it can; what was parsed before it is valid.
        self._parse_error = ""
        #: Waits until the socket can be read; saves a `recv` that would only say that there is nothing yet.
        self._readable = (
            gevent.get_hub().loop.io(sock.fileno(), READ_EVENT) if isinstance(sock, socket.socket) else None
        )
        #: TLS: returns how many decrypted bytes are buffered, which the system's poll does not see.
        self._pending_bytes = getattr(sock, "pending", int)
        self._is_socket_empty = not self._pending_bytes()

    def begin(self) -> None:
        """http.client: reads the head. Raises HTTPException, or OSError when not a byte of it has arrived."""
        events, size = self._events, 0
        while not events.has_head:
            data = self._receive_head_part(size)
            if not data:
                raise BadStatusLine("truncated head") if size else RemoteDisconnected("closed without a response")
            size += len(data)
            self._feed(data)
            if self._parse_error and not events.has_head:
                raise BadStatusLine(self._parse_error)
            if size > MAX_HEAD_BYTES and not events.has_head:
                raise LineTooLong("head")
        version = events.parser.get_http_version()
        self.header_names = frozenset([name.lower() for name, _ in events.headers])
        super().__init__(
            headers=HTTPHeaderDict(events.headers),
            status=events.status,
            version=10 if version == "1.0" else 11,
            version_string=f"HTTP/{version}",
            reason=events.reason,
            decode_content=True,
            request_url=None,
        )
        self.length_remaining = None
        self._init_decoder()

    def _receive_head_part(self, received: int) -> bytes:
        try:
            return self._receive()
        except OSError as error:
            if received:
                raise BadStatusLine(f"truncated head: {type(error).__name__}") from None
            raise

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """urllib3: at least one byte of the body, all that has arrived; b'' at its end.

        Raises HTTPError or OSError when the body is truncated.
        """
        events = self._events
        while True:
            while not events.body and not events.is_complete:
                if self._parse_error:
                    raise ProtocolError(self._parse_error)
                self._read_more()
            if not events.body:
                self._release()
                return b""
            data = events.body[0] if len(events.body) == 1 else b"".join(events.body)
            events.body.clear()
            if self._decoder:
                data = self._decode(data, True, events.is_complete)
            if data:
                return data

    def _read_more(self) -> None:
        """Reads more of the body. If HTTP does not delimit it, the closed connection does (RFC 9112 section 6.3)."""
        data = self._receive()
        if data:
            self._feed(data)
        elif is_delimited(self):
            raise ProtocolError("truncated body")
        else:
            self._events.is_complete = True

    def _feed(self, data: bytes) -> None:
        try:
            self._events.feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._parse_error = str(error) or type(error).__name__

    def _receive(self) -> bytes:
        if self._is_socket_empty and self._readable:
            gevent.get_hub().wait(self._readable)
        data: bytes = self._sock.recv(READ_BYTES)
        self._is_socket_empty = len(data) < READ_BYTES and not self._pending_bytes()
        return data

    def isclosed(self) -> bool:
        """http.client: whether the next request may be sent over the connection."""
        return self._events.is_complete or self._is_closed

    def close(self) -> None:
        """urllib3: stops reading; closes the connection too, unless the response is complete."""
        self._events.keeps_alive &= self._events.is_complete
        self._release()

    def _release(self) -> None:
        """Returns the connection to its pool, closed unless it can be reused."""
        if self._is_closed:
            return
        self._is_closed = True
        self._events.parser = None
        if self._readable:
            self._readable.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            if not self._events.keeps_alive:
                connection.close()
            self._pool._put_conn(connection)  # noqa: SLF001 (as urllib3's own responses do)


def list_header_names(response: BaseHTTPResponse) -> frozenset[str]:
    """Names of the headers in lower case, without the calls per header that iterating over urllib3's mapping costs."""
    if isinstance(response, LlhttpResponse):
        return response.header_names
    return frozenset(name.lower() for name in response.headers)


def is_delimited(response: BaseHTTPResponse) -> bool:
    """Whether HTTP marks the end of the body. Otherwise a closed connection may mean the end or a truncation."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers
