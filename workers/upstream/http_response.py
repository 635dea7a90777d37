"""Answers to a GET or POST, read off their connection with llhttp; it knows no upstream and no frames.

llhttp is Node's parser, in C. It reads heads and chunks (RFC 9112) in a fraction of the time that http.client and
urllib3's response on top of it take for them, and it tells an answer that ended from one that was cut.
"""

from http.client import BadStatusLine, LineTooLong, RemoteDisconnected
from typing import Any

import gevent
from gevent import socket
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from urllib3 import BaseHTTPResponse, HTTPHeaderDict
from urllib3.exceptions import ProtocolError

#: Most bytes taken at once.
READ_BYTES = 65_536
#: gevent: what a socket is watched for.
READ_EVENT = 1
#: Most bytes of an answer's head.
MAX_HEAD_BYTES = 262_144


class ParserEvents:
    """What the parser tells, until the answer is over; what comes after it, nobody has asked for."""

    def __init__(self) -> None:
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        #: Bytes of the body that nobody has taken yet.
        self.body: list[bytes] = []
        self.status = 0
        #: Whether the head is whole, and whether the answer is.
        self.has_head = self.is_complete = False
        #: Whether another request may be sent over the connection.
        self.keeps_alive = False
        #: None when nothing more is read: the parser knows its listener, and a cycle stays until one is looked for.
        self.parser: Any = HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """httptools: an answer begins, perhaps after the end of this one."""
        self.keeps_alive = False

    def on_status(self, reason: bytes) -> None:
        """httptools: a piece of the reason phrase."""
        self.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header; those behind the body are dropped."""
        if not self.has_head:
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """httptools: the end of a head; 1xx only announces the answer."""
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
        """httptools: a piece of the body."""
        if not self.is_complete:
            self.body.append(data)

    def on_message_complete(self) -> None:
        """httptools: the end of an answer."""
        self.is_complete = self.has_head

    def feed(self, data: bytes) -> None:
        """What has come. Raises HttpParserError for what is no HTTP; behind the answer it ends the connection."""
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.keeps_alive = False
            if not self.is_complete:
                raise


class LlhttpResponse(BaseHTTPResponse):
    """One answer; http.client makes it and lets it `begin`, urllib3 gives it the pool that it came from."""

    #: http.client: whether the connection ends with this answer; `close` sees to that here.
    will_close = False
    #: urllib3: the connection, and where it goes when the answer is over.
    _connection: Any = None
    _pool: Any = None

    def __init__(self, sock: Any, method: str | None = None) -> None:
        self._sock = sock
        self._events = ParserEvents()
        self._is_closed = False
        #: What is wrong with the rest of the answer; what has come before it is good.
        self._parse_error = ""
        #: Waited for before a socket is asked that has nothing, which saves the call that would find that out.
        self._readable = (
            gevent.get_hub().loop.io(sock.fileno(), READ_EVENT) if isinstance(sock, socket.socket) else None
        )
        #: TLS: how many bytes lie decrypted where the system does not know of them.
        self._pending_bytes = getattr(sock, "pending", int)
        self._is_socket_empty = not self._pending_bytes()

    def begin(self) -> None:
        """http.client: returns when the head is there. Raises HTTPException, OSError."""
        events, size = self._events, 0
        while not events.has_head:
            data = self._receive()
            if not data:
                raise BadStatusLine("the head is cut") if size else RemoteDisconnected("closed without an answer")
            size += len(data)
            self._feed(data)
            if self._parse_error and not events.has_head:
                raise BadStatusLine(self._parse_error)
            if size > MAX_HEAD_BYTES and not events.has_head:
                raise LineTooLong("head")
        version = events.parser.get_http_version()
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

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """urllib3: what has come, at least a byte; b'' at the end. Raises HTTPError, OSError when it breaks off."""
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
        """More of the body, or the end of one that only the closed connection ends (RFC 9112 section 6.3)."""
        data = self._receive()
        if data:
            self._feed(data)
        elif is_delimited(self):
            raise ProtocolError("the body is cut")
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
        """http.client: whether the next request may be sent."""
        return self._events.is_complete or self._is_closed

    def close(self) -> None:
        """urllib3: nothing more is read; an answer that is not over takes its connection along."""
        self._events.keeps_alive &= self._events.is_complete
        self._release()

    def _release(self) -> None:
        """Gives the connection back, closed if no other request may be sent over it."""
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
            self._pool._put_conn(connection)  # noqa: SLF001 (urllib3's own responses do it so)


def is_delimited(response: BaseHTTPResponse) -> bool:
    """Whether HTTP tells where the body ends; else only the closed connection does, which a cut looks like too."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers
