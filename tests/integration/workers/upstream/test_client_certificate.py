"""Upstream and token endpoint get the pool's client certificate (mutual TLS), an HTTPS proxy on the way never does."""

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from shared.errors import SettingsError, TokenEndpointDown
from shared.settings.file_checks import check_files
from shared.settings.schema import PoolSettings, Settings
from simulator.certificate import create_tls_context
from tests.builders import build_request
from tests.waiting import eventually
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.upstream.client import UpstreamConnection, UpstreamUnreachable, iter_body
from workers.upstream.http_connection import ConnectionDropped
from workers.upstream.pool_network import build_route, create_pool_session
from workers.upstream.tls import UpstreamTlsContext

BODY = b'{"access_token": "at"}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class TlsService:
    """Speaks TLS, and can ask for a client certificate; keeps which one it got, by connection."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self.trust(None)
        self.presented: list[int | None] = []
        self._server = StreamServer(("127.0.0.1", 0), self._accept, spawn=Pool())
        self._server.start()
        self.port: int = self._server.server_port

    def trust(self, certificate: Path | None) -> None:
        """Asks for this client certificate from now on, or for none."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self._certificate, self._certificate.with_suffix(".key"))
        if certificate:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(certificate)

    def _accept(self, client: socket.socket, _: object) -> None:
        with contextlib.suppress(OSError), self.context.wrap_socket(client, server_side=True) as connection:
            certificate = connection.getpeercert(binary_form=True)
            self.presented.append(x509.load_der_x509_certificate(certificate).serial_number if certificate else None)
            self.serve(connection)

    def serve(self, connection: ssl.SSLSocket) -> None:
        """Responds to each request, which is one packet."""
        while connection.recv(65_536):
            connection.sendall(REPLY)

    def close(self) -> None:
        self._server.stop()


class TlsProxy(TlsService):
    """An HTTPS proxy that opens tunnels (CONNECT)."""

    #: What it was asked for.
    request_lines: list[str]
    #: Bytes that have gone through its tunnels.
    forwarded = 0

    def serve(self, connection: ssl.SSLSocket) -> None:
        self.request_lines = [*getattr(self, "request_lines", []), connection.recv(65_536).decode().split("\r\n")[0]]
        method, target, _ = self.request_lines[-1].split()
        if method != "CONNECT":
            connection.sendall(REPLY)
            return
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            backward = gevent.spawn(self._forward, onward, connection)
            self._forward(connection, onward)
            backward.kill()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.forwarded += len(data)
                target.sendall(data)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TlsService]:
    """A service that asks for the certificate in `client.pem`."""
    for name in ("client.pem", "service.pem"):
        create_tls_context(tmp_path / name)
    running = TlsService(tmp_path / "service.pem")
    running.trust(tmp_path / "client.pem")
    yield running
    running.close()


@pytest.fixture
def proxy(service: TlsService, tmp_path: Path) -> Iterator[TlsProxy]:
    """A proxy on the same host, with the certificate of the service; it takes a client certificate, but needs none."""
    assert service.presented == []
    running = TlsProxy(tmp_path / "service.pem")
    running.trust(tmp_path / "client.pem")
    running.context.verify_mode = ssl.CERT_OPTIONAL
    yield running
    running.close()


@pytest.fixture
def pool(service: TlsService, tmp_path: Path) -> PoolSettings:
    url = f"https://localhost:{service.port}"
    return PoolSettings(
        upstream_url=f"{url}/v1",
        token_url=f"{url}/token",
        ca_bundle=str(tmp_path / "service.pem"),
        client_cert=str(tmp_path / "client.pem"),
        client_key=str(tmp_path / "client.key"),
    )


def read_serial(certificate: str | Path) -> int:
    return x509.load_pem_x509_certificate(Path(certificate).read_bytes()).serial_number


def call_upstream(pool: PoolSettings) -> bytes:
    with contextlib.closing(UpstreamConnection(build_route(pool, pool.upstream_url), 30)) as connection:
        return b"".join(iter_body(connection.call(build_request(), b"body", "a-token")))


def refresh(pool: PoolSettings) -> str:
    return TokenEndpoint(pool, create_pool_session(pool, pool.token_url, 1)).refresh("rt").access_token


def test_upstream_and_token_endpoint_get_the_certificate(service: TlsService, pool: PoolSettings):
    assert (call_upstream(pool), refresh(pool)) == (BODY, "at")
    assert service.presented == [read_serial(pool.client_cert)] * 2


def test_key_may_be_in_the_file_of_the_certificate(service: TlsService, pool: PoolSettings):
    certificate, key = Path(pool.client_cert), Path(pool.client_key)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert call_upstream(replace(pool, client_key="")) == BODY
    assert service.presented == [read_serial(certificate)]


def test_pool_without_the_certificate_is_refused(pool: PoolSettings):
    bare = replace(pool, client_cert="", client_key="")
    with pytest.raises((UpstreamUnreachable, ConnectionDropped)):
        call_upstream(bare)
    with pytest.raises(TokenEndpointDown):
        refresh(bare)


def test_renewed_certificate_is_presented_by_new_connections(service: TlsService, pool: PoolSettings, tmp_path: Path):
    call_upstream(pool)
    former = read_serial(pool.client_cert)
    create_tls_context(tmp_path / "renewed.pem")
    service.trust(tmp_path / "renewed.pem")
    for suffix in ("pem", "key"):
        (tmp_path / f"renewed.{suffix}").replace(tmp_path / f"client.{suffix}")
    assert (call_upstream(pool), refresh(pool)) == (BODY, "at")
    assert service.presented == [former, *[read_serial(pool.client_cert)] * 2]


def test_proxy_gets_no_client_certificate_and_shares_one_context(
    service: TlsService, proxy: TlsProxy, pool: PoolSettings, monkeypatch: pytest.MonkeyPatch
):
    """Each connection would load the CA bundle once more, for the proxy."""
    contexts: list[bool] = []
    create = UpstreamTlsContext.__init__
    monkeypatch.setattr(UpstreamTlsContext, "__init__", lambda *given: (contexts.append(True), create(*given))[1])
    monkeypatch.setattr("urllib3.connection.create_urllib3_context", None)
    proxied = replace(pool, proxy=f"https://localhost:{proxy.port}")
    route = build_route(proxied, proxied.upstream_url)
    for _ in range(3):
        with contextlib.closing(UpstreamConnection(route, 30)) as connection:
            replies = [b"".join(iter_body(connection.call(build_request(), b"body", "at"))) for _ in range(2)]
        assert replies == [BODY] * 2
    assert refresh(proxied) == "at"
    assert proxy.request_lines == [f"CONNECT localhost:{service.port} HTTP/1.0"] * 4
    assert proxy.presented == [None] * 4
    assert service.presented == [read_serial(pool.client_cert)] * 4
    assert len(contexts) == 2


def test_request_that_the_upstream_does_not_read_is_taken_back_through_the_proxy(
    service: TlsService, proxy: TlsProxy, pool: PoolSettings, monkeypatch: pytest.MonkeyPatch
):
    """The tunnel's socket is a TLS connection within another, which takes no socket options itself."""
    never = Event()
    monkeypatch.setattr(service, "serve", lambda _: never.wait())
    proxied = replace(pool, proxy=f"https://localhost:{proxy.port}")
    connection = UpstreamConnection(build_route(proxied, proxied.upstream_url), 30)
    call = gevent.spawn(connection.call, build_request(), bytes(30_000_000), "at")

    def is_stuck() -> bool:
        before = proxy.forwarded
        gevent.sleep(0.2)
        return before == proxy.forwarded > 1_000_000

    eventually(is_stuck)
    call.kill()
    assert isinstance(call.value, gevent.GreenletExit)


def test_upstream_without_tls_is_reached_through_a_verified_proxy(proxy: TlsProxy, pool: PoolSettings):
    plain = replace(pool, upstream_url="http://up.invalid/v1", proxy=f"https://localhost:{proxy.port}")
    assert call_upstream(plain) == BODY
    assert proxy.request_lines == ["POST http://up.invalid/v1/chat/completions?k=v HTTP/1.1"]
    with pytest.raises(UpstreamUnreachable):
        call_upstream(replace(plain, ca_bundle=""))


def test_pair_that_can_not_be_used_is_an_error_at_the_start(pool: PoolSettings, tmp_path: Path):
    create_tls_context(tmp_path / "other.pem")
    key = load_key((tmp_path / "client.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.key").write_bytes(locked)
    for wrong, reason in (
        ({"client_cert": str(tmp_path / "none.pem")}, "FARM_CLIENT_CERT: .*none.pem.*No such file"),
        ({"client_key": str(tmp_path / "other.key")}, "FARM_CLIENT_CERT: .*other.key.*MISMATCH"),
        ({"client_key": str(tmp_path / "locked.key")}, "FARM_CLIENT_CERT: .*encrypted"),
        ({"client_cert": ""}, "FARM_CLIENT_KEY"),
    ):
        with pytest.raises(SettingsError, match=f"(?i)pool default: {reason}"):
            check_files(Settings(pools=(replace(pool, **wrong),)))
    check_files(Settings(pools=(pool,)))
