"""A relay to Redis whose clients vanish without a word: Redis keeps what it knows as their connections."""

import contextlib
from collections.abc import Iterator

import gevent
from gevent import socket
from gevent.server import StreamServer

PIECE_BYTES = 65536


class HalfOpenRelay:
    """Relays connections to a Unix socket; the ends of its clients do not reach the server."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server = StreamServer(("127.0.0.1", 0), self._relay)
        self._server.start()
        self._clients: list[socket.socket] = []
        self._servers: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._server.server_port}"

    def drop_clients(self) -> None:
        """Breaks the connections for the clients only."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._clients.clear()

    def close(self) -> None:
        self._server.stop()
        for connection in (*self._clients, *self._servers):
            connection.close()

    def _relay(self, client: socket.socket, _: object) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        self._clients.append(client)
        self._servers.append(server)
        gevent.joinall([gevent.spawn(copy, client, server), gevent.spawn(copy, server, client)], count=1)


def copy(source: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            destination.sendall(piece)


@contextlib.contextmanager
def run_half_open_relay(target: str) -> Iterator[HalfOpenRelay]:
    relay = HalfOpenRelay(target)
    yield relay
    relay.close()
