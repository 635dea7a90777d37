"""Sends the head of a response together with the first bytes of its body, and probes whether the caller still reads.

gunicorn writes head and body separately, which costs one more system call here and wakes the caller twice.

A probe is one byte that changes nothing of the response: first of the status line, which begins alike whatever the
status, then of interim responses (`100 Continue`, RFC 9110 section 15.2); between two chunks a leading zero of the next
chunk's size (RFC 9112 section 7.1). The host of a caller that has closed its connection resets it then.
"""

import os
from collections.abc import Callable
from typing import Any

from shared.network.sockets import send_in_pieces

#: Bytes above which joining costs more than a second system call.
MAX_JOINED_BYTES = 65_536
#: Zeros before the size of one chunk: clients take 16 digits at least.
MAX_ZEROS = 8
CHUNKED, LAST_CHUNK = b"\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"


class CorkedSocket:
    """Stands in for the caller's socket while one request is handled."""

    def __init__(self, raw: Any, minor_version: int = 1) -> None:
        """`minor_version` is that of the caller's HTTP/1.x."""
        self.raw = raw
        self._has_head = False
        self._head = b""
        self._status_line_start = b"HTTP/1.%d " % minor_version
        #: Probes until there is a head; HTTP/1.0 has no interim responses.
        self._interim = self._status_line_start + (b"100 Continue\r\n\r\n" if minor_version else b"")
        #: Probes sent since the last interim response was complete, or since the last chunk.
        self._probes = 0
        self._is_sending = False
        #: Whether what is sent next begins with the size of a chunk.
        self._is_between_chunks = False
        #: Called before the head is taken.
        self.before_head: Callable[[], object] = lambda: None

    def sendall(self, data: bytes) -> None:
        """Holds back the first data, the head, until the next."""
        if not self._has_head:
            self.before_head()
            self._has_head, self._head = True, self._continue_probes(data)
            return
        if len(data) > MAX_JOINED_BYTES:
            self.flush()
        head, self._head = self._head, b""
        self._is_between_chunks = (self._is_between_chunks or CHUNKED in head) and data != LAST_CHUNK
        self._send(head + data if head else data)

    def send(self, data: bytes) -> int:
        """gunicorn: only `100 Continue`, before the app has seen the request; it is sent later (expect_continue.py)."""
        return len(data)

    def flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._is_between_chunks = CHUNKED in head
            self._send(head)

    def _send(self, data: bytes) -> None:
        self._is_sending = True
        try:
            send_in_pieces(self.raw, data)
        finally:
            self._is_sending, self._probes = False, 0

    def _continue_probes(self, head: bytes) -> bytes:
        """What is to be sent of a response's head, or before it, after the probes so far."""
        probes, self._probes = self._probes, 0
        return head[probes:] if probes <= len(self._status_line_start) else self._interim[probes:] + head

    def probe(self) -> bool:
        """Sends one byte, without blocking; returns whether the caller may still be there.

        Sends nothing when there is no byte that would change nothing, or while the response itself is being sent.
        """
        if self._is_sending or self._head:
            return True
        if not self._has_head:
            byte = self._interim[self._probes : self._probes + 1]
        else:
            byte = b"0" if self._is_between_chunks and self._probes < MAX_ZEROS else b""
        try:
            if byte and os.write(self.raw.fileno(), byte):
                self._probes += 1
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not self._has_head and self._probes == len(self._interim) > len(self._status_line_start):
            self._probes = 0
        return True

    def __getattr__(self, name: str) -> Any:
        """Any other use of the socket comes after the head."""
        self.flush()
        return getattr(self.raw, name)
