"""Detects callers that disconnect while nothing is being written to them, by watching the socket (I8)."""

import socket
import struct
from collections.abc import Callable
from typing import Any

import gevent

READ_EVENT = 1


class DisconnectWatcher:
    """Calls back once when the peer has closed the socket."""

    def __init__(self, sock: Any, on_gone: Callable[[], None]) -> None:
        self._socket = sock
        self._on_gone = on_gone
        self._watcher: Any = None
        if isinstance(sock, socket.socket) and not hasattr(sock, "getpeercert"):
            self._watcher = gevent.get_hub().loop.io(sock.fileno(), READ_EVENT)
            self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        """Readable means closed or pipelined data. The latter would hide a later close, so watching ends."""
        try:
            data = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.stop()
        if not data:
            self._on_gone()

    def stop(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()


def abort(sock: Any) -> None:
    """Resets the connection now, which wakes a greenlet blocked on writing to it."""
    reset_on_close(sock)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        return


def reset_on_close(sock: Any) -> None:
    """Turns the close into a reset, so that not even an HTTP/1.0 client takes a truncated body for complete."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, AttributeError):
        return
