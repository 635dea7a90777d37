"""TLS sessions are resumed by all workers of a pool, and handshakes leave everything else its turns."""

import contextlib
import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from simulator.certificate import create_tls_context
from workers.upstream import tls
from workers.upstream.tls import load_context


class TlsServer:
    """Responds to each byte, and keeps whether each connection resumed a session; the next one can be broken."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.context = create_tls_context(certificate)
        self.resumed: list[bool | None] = []
        self.breaks_next = False
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port: int = self._server.server_port

    def _serve(self, client: socket.socket, _: object) -> None:
        if self.breaks_next:
            self.breaks_next = False
            return
        with contextlib.suppress(OSError), self.context.wrap_socket(client, server_side=True) as connection:
            self.resumed.append(connection.session_reused)
            while connection.recv(1):
                connection.sendall(b"!")

    def close(self) -> None:
        self._server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    running = TlsServer(tmp_path / "certificate.pem")
    yield running
    running.close()


def open_connection(server: TlsServer, host: str = "localhost") -> tls.UpstreamTlsSocket:
    plain = socket.create_connection(("127.0.0.1", server.port))
    plain.settimeout(30)
    return load_context(str(server.certificate)).wrap_socket(plain, server_hostname=host)


def exchange(server: TlsServer, host: str = "localhost") -> None:
    """Opens a connection, reads a response over it, and closes it."""
    with open_connection(server, host) as connection:
        connection.sendall(b"?")
        assert connection.recv(1) == b"!"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_later_connections_resume_the_session_of_the_first(server: TlsServer, version: ssl.TLSVersion):
    server.context.maximum_version = version
    for _ in range(3):
        exchange(server)
    assert server.resumed == [False, True, True]


def test_session_is_resumed_only_at_the_host_whose_certificate_was_verified(server: TlsServer):
    for host in ("localhost", "127.0.0.1", "localhost"):
        exchange(server, host)
    assert server.resumed == [False, False, True]


def test_certificate_is_verified_again_some_time_after_it_was(server: TlsServer, monkeypatch: pytest.MonkeyPatch):
    exchange(server)
    exchange(server)
    monkeypatch.setattr(tls, "MAX_SESSION_SECONDS", 0.0)
    exchange(server)
    assert server.resumed == [False, True, False]


def test_session_that_breaks_a_handshake_is_not_tried_again(server: TlsServer):
    exchange(server)
    server.breaks_next = True
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(server)
    exchange(server)
    assert server.resumed == [False, False]


def test_replaced_ca_bundle_is_loaded(server: TlsServer, tmp_path: Path):
    exchange(server)
    other = TlsServer(tmp_path / "new.pem")
    other.certificate.replace(server.certificate)
    other.certificate = server.certificate
    exchange(other)
    with pytest.raises(ssl.SSLCertVerificationError):
        exchange(server)
    other.close()


def test_handshakes_that_could_all_go_on_let_others_take_their_turns(server: TlsServer):
    """A thousand workers that connect at once must not keep the process from renewing its leases."""
    turns: list[int] = []
    done: list[tls.UpstreamTlsSocket] = []

    def take_turns() -> None:
        while True:
            turns.append(len(done))
            gevent.sleep(0)

    def shake_hands() -> None:
        done.append(open_connection(server))

    others = gevent.spawn(take_turns)
    gevent.joinall([gevent.spawn(shake_hands) for _ in range(40)], raise_error=True)
    others.kill()
    for connection in done:
        connection.close()
    in_a_row = max(later - earlier for earlier, later in itertools.pairwise(turns))
    assert in_a_row <= 2 * tls.MAX_HANDSHAKES_IN_A_ROW


def test_handshake_that_the_server_never_ends_times_out():
    silent = socket.create_server(("127.0.0.1", 0))
    plain = socket.create_connection(silent.getsockname())
    plain.settimeout(0.05)
    with pytest.raises(TimeoutError):
        tls.UpstreamTlsContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain, server_hostname="localhost")
    silent.close()


def test_session_that_the_server_has_forgotten_is_replaced(server: TlsServer):
    """As after its restart, or when it accepts each ticket only once."""
    exchange(server)
    server.context = create_tls_context(server.certificate.with_name("other.pem"))
    server.context.load_cert_chain(server.certificate, server.certificate.with_suffix(".key"))
    for _ in range(3):
        exchange(server)
    assert server.resumed == [False, False, True, True]
