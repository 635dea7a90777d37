"""Notices a caller that has gone while nothing is written to it, by watching its socket (I8); it knows no request."""

import socket
import struct
from collections.abc import Callable
from typing import Any

import gevent

READ_EVENT = 1


class DisconnectWatcher:
    """Calls back once when the other end of a socket has closed it."""

    def __init__(self, sock: Any, on_gone: Callable[[], None]) -> None:
        self._socket = sock
        self._on_gone = on_gone
        self._watcher: Any = None
        if isinstance(sock, socket.socket) and not hasattr(sock, "getpeercert"):
            self._watcher = gevent.get_hub().loop.io(sock.fileno(), READ_EVENT)
            self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        """Readable means closed, or a next request that came early; the latter says nothing, so watching ends."""
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
        """Watches no more."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()


def abort(sock: Any) -> None:
    """Ends the connection now, so that whoever waits for its other end to read goes on."""
    reset_on_close(sock)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        return


def reset_on_close(sock: Any) -> None:
    """Makes the connection's close a reset, so that a body that is not whole is not taken for one, even by HTTP/1.0."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, AttributeError):
        return
