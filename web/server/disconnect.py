"""Detects callers that disconnect while nothing is being written to them, by watching the socket (I8).

A FIN alone says only that the caller sends no more (RFC 9293 section 3.6); it may read on. So the connection is probed
then (corked_socket.py), at once and from time to time: the host of a caller that has closed it answers with a reset.

A caller whose host loses power or its network sends neither FIN nor RST. TCP keepalive finds it while nothing is in
flight; otherwise the kernel would retransmit for a quarter of an hour, so unacknowledged data is looked at here.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent

from shared.network.tcp_keepalive import KeepAlive

READ_EVENT = 1
#: Seconds without a sign of life after which a caller's host counts as gone.
VANISHED_AFTER_SECONDS = 30
KEEPALIVE = KeepAlive(idle=15, interval=5, probes=3)
#: Seconds after a FIN at which to look whether the first probe was answered with a reset; then every second.
RESET_CHECK_SECONDS = (0.005, 0.02, 0.1, 0.3)
#: Seconds between two probes: at first, their growth, and at most.
PROBE_SECONDS, PROBE_GROWTH, MAX_PROBE_SECONDS = 1.0, 1.5, 10.0
#: States of a connection in Linux: closed (by a reset, since we still hold it), and closed by the peer's FIN.
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8
#: Offsets in Linux's `struct tcp_info`: segments in flight, and milliseconds since the last acknowledgement.
UNACKED_OFFSET, LAST_ACK_OFFSET = 24, 56


class ConnectionInfo(NamedTuple):
    """What the kernel knows of a connection; zeros where it does not say."""

    state: int = 0
    #: Segments in flight.
    unacked: int = 0
    #: Milliseconds since the last acknowledgement.
    silent_ms: int = 0


class DisconnectWatcher:
    """Calls back once when the peer has closed the connection, or has vanished."""

    #: Watchers of this process whose caller is still there.
    active: "set[DisconnectWatcher]" = set()  # noqa: RUF012 (shared on purpose)

    def __init__(self, sock: Any, on_gone: Callable[[], None]) -> None:
        """`sock` is a CorkedSocket, or a socket that can't be probed: there a FIN counts as gone."""
        self._socket = find_raw_socket(sock)
        self._probe: Callable[[], bool] = getattr(sock, "probe", lambda: False)
        self._on_gone = on_gone
        self._watcher: Any = None
        #: Whether the caller has ended its sending, when it is probed next, and seconds until the probe after that.
        self._has_fin, self._probe_at, self._pause = False, 0.0, PROBE_SECONDS
        if isinstance(self._socket, socket.socket) and not hasattr(self._socket, "getpeercert"):
            self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), READ_EVENT)
            self._watcher.start(self._on_readable)
            self.active.add(self)

    def _on_readable(self) -> None:
        """Readable means ended, reset, or pipelined data; what comes after the latter is left to `check`."""
        try:
            data = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._report_gone()
            return
        self._stop_watcher()
        if not data:
            self._begin_probing()

    def _begin_probing(self) -> None:
        self._has_fin = True
        self._send_probe()
        self._check_for_reset(RESET_CHECK_SECONDS)

    def _send_probe(self) -> None:
        self._probe_at = time.monotonic() + self._pause
        self._pause = min(MAX_PROBE_SECONDS, self._pause * PROBE_GROWTH)
        if not self._probe():
            self._report_gone()

    def _check_for_reset(self, delays: tuple[float, ...]) -> None:
        """Looks again after each of the delays, in seconds."""
        if self not in self.active:
            return
        if read_connection_info(self._socket).state == TCP_CLOSE:
            self._report_gone()
        elif delays:
            self._watcher = gevent.get_hub().loop.timer(delays[0])
            self._watcher.start(self._on_timer, delays[1:])

    def _on_timer(self, delays: tuple[float, ...]) -> None:
        self._stop_watcher()
        self._check_for_reset(delays)

    def check(self) -> None:
        """Called about once a second: finds what the socket doesn't report by itself."""
        info = read_connection_info(self._socket)
        if info.state == TCP_CLOSE:
            self._report_gone()
        elif has_vanished(info):
            # A slow reader acknowledges, and stays.
            abort(self._socket)
            self._report_gone()
        elif self._has_fin:
            if time.monotonic() >= self._probe_at:
                self._send_probe()
        elif info.state == TCP_CLOSE_WAIT and self._watcher is None:
            self._begin_probing()

    def _report_gone(self) -> None:
        self.stop()
        self._on_gone()

    def stop(self) -> None:
        self.active.discard(self)
        self._stop_watcher()

    def _stop_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()


def check_callers() -> None:
    for watcher in list(DisconnectWatcher.active):
        if watcher in DisconnectWatcher.active:
            watcher.check()


def read_connection_info(sock: socket.socket) -> ConnectionInfo:
    """Zeros off Linux, and for what is no TCP connection."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (unacked,) = struct.unpack_from("I", info, UNACKED_OFFSET)
        (milliseconds,) = struct.unpack_from("I", info, LAST_ACK_OFFSET)
    except (OSError, AttributeError, struct.error):
        return ConnectionInfo()
    return ConnectionInfo(info[0], unacked, milliseconds)


def has_vanished(info: ConnectionInfo) -> bool:
    """Whether data has been in flight, and nothing acknowledged, for VANISHED_AFTER_SECONDS."""
    return bool(info.unacked) and info.silent_ms > 1000 * VANISHED_AFTER_SECONDS


def find_raw_socket(sock: Any) -> Any:
    """The socket behind a CorkedSocket."""
    return vars(sock)["raw"] if hasattr(sock, "probe") else sock


def enable_keepalive(listeners: Iterable[Any]) -> None:
    """Lets the kernel probe idle connections; accepted sockets inherit it from their listener (on Linux)."""
    for listener in listeners:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.list_options().items():
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def abort(sock: Any) -> None:
    """Resets the connection now, which wakes a greenlet blocked on writing to it."""
    sock = find_raw_socket(sock)
    reset_on_close(sock)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        return


def reset_on_close(sock: Any) -> None:
    """Turns the close into a reset, so that not even an HTTP/1.0 client takes a truncated body for complete."""
    try:
        find_raw_socket(sock).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, AttributeError):
        return
