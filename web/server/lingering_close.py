"""Reads and discards the rest of a request that was answered early, so that its sender can read the reply.

Closing a connection with unread data resets it, and the reply is lost with it (RFC 9112 section 9.6).
"""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn.http.errors import ParseException

#: Bytes and seconds for which a request is discarded, and seconds in which each piece of it must arrive.
MAX_DISCARDED_BYTES = 64 * 1024 * 1024
MAX_LINGER_SECONDS, IDLE_SECONDS = 30.0, 2.0
PIECE_BYTES = 65_536
#: Seconds between two pieces, for each connection that lingers: 64 MB/s in all, so that a flood costs little CPU time.
PAUSE_SECONDS = 0.001
#: Connections of a front that may linger at the same time; others are closed at once.
MAX_LINGERING = 200

#: Connections that linger now.
_lingering: set[object] = set()


def is_read(body: Any) -> bool:
    """Whether a gunicorn request body has been read to its end."""
    return getattr(body.reader, "length", None) == 0 or getattr(body.reader, "parser", body) is None


def discard_body(body: Any) -> bool:
    """Discards the rest of a request body; False when its end was not reached, so that the connection must close."""
    return not body.failed and discard(body.read)


def discard_rest(body: Any) -> None:
    """Discards what has not been read of a request body, before the reply to it."""
    if not is_read(body) and not body.failed:
        body.failed = not discard_body(body)


def linger(sock: Any) -> None:
    """Ends the reply, and waits until the peer has closed the connection, before which it reads the reply."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        discard(sock.recv)


def discard(read: Callable[[int], bytes]) -> bool:
    """Reads to the end, within the limits; False when they came first, or the connection broke."""
    if len(_lingering) >= MAX_LINGERING:
        return False
    marker, discarded = object(), 0
    give_up_at = time.monotonic() + MAX_LINGER_SECONDS
    _lingering.add(marker)
    try:
        with contextlib.suppress(OSError, ParseException):
            while discarded <= MAX_DISCARDED_BYTES and time.monotonic() < give_up_at:
                data = None
                with gevent.Timeout(IDLE_SECONDS, exception=False):
                    data = read(PIECE_BYTES)
                if not data:
                    return data is not None
                discarded += len(data)
                gevent.sleep(PAUSE_SECONDS * len(_lingering))
        return False
    finally:
        _lingering.discard(marker)
