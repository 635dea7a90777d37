"""Connections for urllib3 with less work for each request.

1. Head and body of a request leave in one send instead of two.
2. The system's poll tells whether a kept-alive connection is still open; gevent's would register with the event loop.
3. Responses are parsed in C (http_response.py).

`before_send` is called when the connection is established, TLS included: the last moment at which the request can be
cancelled without the upstream seeing it. From then on a connection that breaks is a ConnectionDropped, because the
upstream may have the request.
"""

import fcntl
import http.client
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping
from select import POLLIN
from types import MappingProxyType
from typing import Any, cast

from gevent import monkey
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection

from shared.errors import FarmError
from shared.network.sockets import send_in_pieces
from shared.network.tcp_keepalive import KeepAlive
from workers.upstream.http_response import LlhttpResponse

#: Bytes of a body above which copying it costs more than a second send.
MAX_JOINED_BYTES = 65_536
#: Seconds after sending within which a kept-alive connection breaks if the upstream had closed it before.
IDLE_CLOSE_SECONDS = 1.0
#: Routers forget connections that are silent for some minutes, without a word to either end: probes keep those of long
#: thinking and of idle workers alive, and find the forgotten ones before a request waits for one in vain.
KEEPALIVE = KeepAlive(idle=15, interval=5, probes=3)
SOCKET_OPTIONS = (
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, option, value) for option, value in KEEPALIVE.list_options().items()),
)
poll = monkey.get_original("select", "poll")


class RequestNotSendable(FarmError):
    """Raised when HTTP has no way to express the request: a header's value is no latin-1, say. Nothing was sent."""


class ConnectionDropped(FarmError):
    """Raised when the connection broke between the sending of a request and the head of its response."""

    def __init__(self, reason: str, *, was_idle: bool) -> None:
        super().__init__(reason)
        #: Whether the upstream had closed the connection while it was idle, so that it has not seen the request.
        self.was_idle = was_idle


class UpstreamHTTPConnection(HTTPConnection):
    """A connection to an upstream."""

    #: Parts of a request that are collected for one send; None outside of `request`.
    _held: list[bytes] | None = None
    #: Whether a response has been received over this connection.
    _has_served = False
    #: When the last request was sent, by the monotonic clock.
    _sent_at = 0.0

    def __init__(self, *args: Any, before_send: Callable[[], None], **kwargs: Any) -> None:
        """`before_send` is called before each request is sent; if it raises, nothing is sent."""
        super().__init__(*args, **{"socket_options": SOCKET_OPTIONS, **kwargs})
        self._before_send = before_send

    def request(  # type: ignore[override]
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({}), **_: Any
    ) -> None:
        """urllib3: sends head and body. Header names must be in lower case; urllib3 adds none of its own.

        Raises RequestNotSendable, ConnectionDropped, or what `before_send` raises.
        """
        held = self._write_request(method, url, body, headers)
        if self.sock is None:
            self.connect()
        self._before_send()
        self._sent_at = time.monotonic()
        is_small = sum(map(len, held[1:])) <= MAX_JOINED_BYTES
        try:
            for data in [b"".join(held)] if is_small else held:
                send_in_pieces(self.sock, data)
        except BrokenPipeError:
            raise  # urllib3 goes on to read: the upstream may have responded before it stopped reading.
        except OSError as error:
            raise self._describe_drop(error) from None

    def _write_request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
        """The request's head and body. Raises RequestNotSendable."""
        held: list[bytes] = []
        self._held = held
        try:
            self.putrequest(method, url, skip_host="host" in headers, skip_accept_encoding=True)
            # urllib3's putheader would check for each header whether to skip it.
            put_header = http.client.HTTPConnection.putheader
            for name, value in headers.items():
                put_header(self, name, value)
            if body or method == "POST":
                put_header(self, "content-length", str(len(body)))
            self.endheaders(body)
        except Exception as error:
            raise RequestNotSendable(type(error).__name__) from None
        finally:
            self._held = None
        return held

    def connect(self) -> None:
        """http.client: opens the connection."""
        self._has_served = False
        super().connect()

    def close(self) -> None:
        """http.client: closes the connection, and takes back what the upstream has not received yet (I1)."""
        if self.sock is not None:
            discard_unreceived(self.sock)
        super().close()

    def send(self, data: Any) -> None:
        """http.client: sends bytes, opening the connection if need be; within `request`, collects them."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> LlhttpResponse:  # type: ignore[override]
        """urllib3: the response once its head has arrived. Raises ConnectionDropped.

        No socket timeout: the attempt's scope has the deadlines.
        """
        if self.sock.gettimeout() is not None:
            self.sock.settimeout(None)
        # Set only here: http.client parses the response of a proxy to CONNECT itself.
        self.response_class = LlhttpResponse  # type: ignore[assignment]
        try:
            response = cast("LlhttpResponse", http.client.HTTPConnection.getresponse(self))
        except (http.client.HTTPException, OSError) as error:
            raise self._describe_drop(error) from None
        finally:
            del self.response_class
        self._has_served = True
        return response

    def _describe_drop(self, error: Exception) -> ConnectionDropped:
        """An OSError means that not a byte of a response has come (RemoteDisconnected is one)."""
        broke_at_once = time.monotonic() - self._sent_at < IDLE_CLOSE_SECONDS
        was_idle = self._has_served and broke_at_once and isinstance(error, OSError)
        return ConnectionDropped(type(error).__name__, was_idle=was_idle)

    @property
    def is_connected(self) -> bool:
        """urllib3: whether the connection can be reused: the peer has neither closed it nor sent unexpected bytes."""
        if self.sock is None:
            return False
        poller = poll()
        poller.register(self.sock.fileno(), POLLIN)
        return not poller.poll(0)


class UpstreamHTTPSConnection(UpstreamHTTPConnection, HTTPSConnection):
    """A connection to an upstream over TLS."""


class UpstreamSOCKSConnection(UpstreamHTTPConnection, SOCKSConnection):
    """A connection to an upstream through a SOCKS proxy."""


class UpstreamSOCKSHTTPSConnection(UpstreamHTTPSConnection, SOCKSHTTPSConnection):
    """A connection to an upstream over TLS through a SOCKS proxy."""


def discard_unreceived(sock: Any) -> None:
    """Makes the close a reset if the peer has not acknowledged everything; else it stays a FIN, which is retransmitted.

    The kernel goes on to send what is in flight after a close. Once a partition is over, the upstream would get a
    request whose attempt was given up, while the credential serves another.
    """
    try:
        queued = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        if queued:
            # TLS within TLS, through a proxy, wraps the proxy's connection.
            getattr(sock, "socket", sock).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, ValueError):
        return  # It is closed already, or the system does not say (TIOCOUTQ is SIOCOUTQ in tcp(7)).


def select_connection_class(pool: HTTPConnectionPool) -> Any:
    """The class of the pool's connections, in place of urllib3's own."""
    if issubclass(pool.ConnectionCls, SOCKSConnection):
        return UpstreamSOCKSHTTPSConnection if pool.scheme == "https" else UpstreamSOCKSConnection
    return UpstreamHTTPSConnection if pool.scheme == "https" else UpstreamHTTPConnection
