"""Detects callers that disconnect while nothing is being written to them, by watching the socket (I8).

A caller whose host loses power or its network sends neither FIN nor RST. TCP keepalive finds it while nothing is in
flight; otherwise the kernel would retransmit for a quarter of an hour, so unacknowledged data is looked at here.
"""

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

import gevent

READ_EVENT = 1
#: Seconds without a sign of life after which a caller's host counts as gone.
VANISHED_AFTER_SECONDS = 30
#: TCP keepalive: seconds of silence before the first probe, seconds between probes, probes without a reply.
KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
#: Offsets in Linux's `struct tcp_info`: segments in flight, and milliseconds since the last acknowledgement.
UNACKED_OFFSET, LAST_ACK_OFFSET = 24, 56


class DisconnectWatcher:
    """Calls back once when the peer has closed the socket, or has vanished."""

    #: Watchers of this process whose caller is still there.
    active: "set[DisconnectWatcher]" = set()  # noqa: RUF012 (shared on purpose)

    def __init__(self, sock: Any, on_gone: Callable[[], None]) -> None:
        self._socket = sock
        self._on_gone = on_gone
        self._watcher: Any = None
        if isinstance(sock, socket.socket) and not hasattr(sock, "getpeercert"):
            self._watcher = gevent.get_hub().loop.io(sock.fileno(), READ_EVENT)
            self._watcher.start(self._on_readable)
            self.active.add(self)

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

    def check_for_vanished(self) -> None:
        """Resets the connection and calls back if the caller's host is gone. A slow reader acknowledges, and stays."""
        if has_vanished(self._socket):
            self.stop()
            abort(self._socket)
            self._on_gone()

    def stop(self) -> None:
        self.active.discard(self)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()


def check_all_for_vanished() -> None:
    for watcher in list(DisconnectWatcher.active):
        watcher.check_for_vanished()


def has_vanished(sock: socket.socket) -> bool:
    """Whether data has been in flight, and nothing acknowledged, for VANISHED_AFTER_SECONDS. Always False off Linux."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (unacked,) = struct.unpack_from("I", info, UNACKED_OFFSET)
        (milliseconds,) = struct.unpack_from("I", info, LAST_ACK_OFFSET)
    except (OSError, AttributeError, struct.error):
        return False
    return bool(unacked) and milliseconds > 1000 * VANISHED_AFTER_SECONDS


def enable_keepalive(listeners: Iterable[Any]) -> None:
    """Lets the kernel probe idle connections; accepted sockets inherit it from their listener (on Linux)."""
    for listener in listeners:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE_OPTIONS.items():
            if option := getattr(socket, name, None):
                listener.setsockopt(socket.IPPROTO_TCP, option, value)


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
