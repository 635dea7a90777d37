"""A TLS endpoint in front of a server that speaks none, as stunnel is: for rediss://, slow links and broken ones."""

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import gevent
from gevent import socket
from gevent.server import StreamServer

from simulator.certificate import create_tls_context

PIECE_BYTES = 65536


class TlsRelay:
    """Relays connections to a Unix socket; `certificate` is the file that its clients trust."""

    def __init__(self, target: str, certificate: Path) -> None:
        self.certificate = certificate
        #: Seconds for which each piece is held back, in either direction.
        self.delay = 0.0
        self._target = target
        self._open: set[socket.socket] = set()
        context: ssl.SSLContext = create_tls_context(certificate)
        self._server = StreamServer(("", 0), self._relay, ssl_context=context)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def connections(self) -> int:
        return len(self._open)

    def break_connections(self) -> int:
        """Breaks every connection without a TLS close; returns how many there were."""
        broken = list(self._open)
        for connection in broken:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return len(broken)

    def close(self) -> None:
        self._server.stop()
        self.break_connections()

    def _relay(self, client: socket.socket, _: object) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            self._open.add(client)
            directions = [gevent.spawn(self._copy, client, server), gevent.spawn(self._copy, server, client)]
            gevent.joinall(directions, count=1)
            gevent.killall(directions)
            self._open.discard(client)

    def _copy(self, source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                gevent.sleep(self.delay)
                destination.sendall(piece)


@contextlib.contextmanager
def run_tls_relay(target: str, certificate: Path) -> Iterator[TlsRelay]:
    relay = TlsRelay(target, certificate)
    yield relay
    relay.close()
