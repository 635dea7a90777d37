"""The upstream client sends requests over kept connections and reads responses of every shape."""

import gc
import gzip
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gevent
import gevent.socket
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from gevent.server import StreamServer

from shared.settings.schema import PoolSettings
from tests import internals
from tests.builders import build_request
from tests.environment import free_port
from workers.attempt.cancel_scope import Cancelled
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.upstream import http_connection
from workers.upstream.client import (
    ResponseTruncated,
    UpstreamConnection,
    UpstreamMisconfigured,
    UpstreamRoute,
    UpstreamUnreachable,
    create_shared_session,
    iter_body,
)
from workers.upstream.http_connection import ConnectionDropped, RequestNotSendable
from workers.upstream.http_response import MAX_HEAD_BYTES, LlhttpResponse, ParserEvents
from workers.upstream.tls import UpstreamTlsContext

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
REDIRECT = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"


class Server:
    """An HTTP server whose responses the test chooses."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        #: Request heads, by connection.
        self.heads: list[list[str]] = []
        self.clients: list[socket.socket] = []
        #: Connection, number of its request -> a response, or None to close the connection.
        self.respond: Callable[[int, int], bytes | None] = lambda *_: OK
        self.greenlet = gevent.spawn(self.accept)

    def accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            self.clients.append(client)
            self.heads.append([])
            gevent.spawn(self._serve, client, len(self.heads) - 1)

    def _serve(self, client: socket.socket, connection: int) -> None:
        with client:
            while True:
                received = b""
                while not received.endswith(b"body"):
                    part = client.recv(65_536)
                    if not part:
                        return
                    received += part
                self.heads[connection].append(received.partition(b"\r\n\r\n")[0].decode())
                response = self.respond(connection, len(self.heads[connection]))
                if response is None:
                    return
                client.sendall(response)

    def close(self) -> None:
        self.greenlet.kill()
        self.listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def send(connection: UpstreamConnection) -> int:
    response = connection.call(build_request(), b"body", "a-token")
    assert b"".join(iter_body(response)) in (b"{}", b"")
    response.close()
    return response.status


def test_request_has_the_upstream_path_the_token_and_no_library_headers(server: Server):
    assert send(UpstreamConnection(UpstreamRoute(f"{server.url}/base/v1"), 5)) == 200
    ((head,),) = server.heads
    first, *lines = head.split("\r\n")
    assert first == "POST /base/v1/chat/completions?k=v HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers == {
        "host": server.url.removeprefix("http://"),
        "user-agent": "token-farm",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Bearer a-token",
        "content-length": "4",
    }


def test_operators_headers_replace_the_farms_own_name(server: Server):
    headers = {"User-Agent": "acme/1", "X-Tenant": "7"}
    send(UpstreamConnection(UpstreamRoute(server.url), 5, headers=headers))
    lines = server.heads[0][0].split("\r\n")
    assert {"user-agent: acme/1", "x-tenant: 7"} <= set(lines)
    assert len([line for line in lines if line.startswith("user-agent")]) == 1


def test_connection_that_was_closed_while_idle_is_replaced(server: Server):
    server.respond = lambda _, number: OK if number == 1 else None
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [send(connection), send(connection)] == [200, 200]
    assert [len(heads) for heads in server.heads] == [2, 1] or [len(heads) for heads in server.heads] == [1, 1]


def test_connection_is_probed_while_it_is_silent(server: Server):
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert send(connection) == 200
    sock = internals.upstream_socket(connection)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if sys.platform == "linux":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15


def fill_buffers(sock: socket.socket) -> None:
    while True:
        sock.send(bytes(65_536))


def read_to_end(sock: socket.socket) -> None:
    while sock.recv(65_536):
        pass


def test_request_that_the_upstream_has_not_received_is_taken_back():
    """Full buffers stand for a partition: after it the kernel would deliver what is in flight."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connection = http_connection.UpstreamHTTPConnection("127.0.0.1", port, before_send=lambda: None)
        connection.connect()
        upstream, _ = listener.accept()
        connection.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            fill_buffers(connection.sock)
        connection.close()
        with upstream, pytest.raises(ConnectionResetError):
            read_to_end(upstream)


def test_upstream_that_closes_a_new_connection_gets_the_request_once(server: Server):
    """It has the request and may be working on it."""
    server.respond = lambda *_: None
    with pytest.raises(ConnectionDropped):
        send(UpstreamConnection(UpstreamRoute(server.url), 5))
    assert sum(map(len, server.heads)) == 1


def test_upstream_that_begins_a_response_gets_the_request_once(server: Server):
    server.respond = lambda _, number: OK if number == 1 else close_after(server, b"HTTP/1.1 2")
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert send(connection) == 200
    with pytest.raises(ConnectionDropped):
        send(connection)
    assert sum(map(len, server.heads)) == 2


def test_upstream_that_closes_after_a_while_gets_the_request_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    def respond(_: int, number: int) -> bytes | None:
        if number == 1:
            return OK
        gevent.sleep(0.2)
        return None

    monkeypatch.setattr(http_connection, "IDLE_CLOSE_SECONDS", 0.1)
    server.respond = respond
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert send(connection) == 200
    with pytest.raises(ConnectionDropped):
        send(connection)
    assert sum(map(len, server.heads)) == 2


def test_upstream_that_closes_both_an_idle_and_a_new_connection_gets_the_request_once_on_each(server: Server):
    server.respond = lambda connection, number: OK if (connection, number) == (0, 1) else None
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert send(connection) == 200
    with pytest.raises(ConnectionDropped):
        send(connection)
    assert sum(map(len, server.heads)) == 3


@pytest.mark.parametrize("headers", [{"x-long": "a\nb"}, {"x-sign": "\u2013"}])
def test_request_that_http_cannot_express_is_not_sent(server: Server, headers: dict[str, str]):
    connection = UpstreamConnection(UpstreamRoute(server.url), 5, headers=headers)
    with pytest.raises(RequestNotSendable):
        send(connection)
    assert not server.heads


@pytest.mark.parametrize(
    ("url", "options", "setting"),
    [
        ("http://127.0.0.1:80a/v1", {}, "FARM_UPSTREAM_URL"),
        ("https:///v1", {}, "FARM_UPSTREAM_URL"),
        ("https://.example.com/v1", {}, "FARM_UPSTREAM_URL"),
        ("http://[::1/v1", {}, "FARM_UPSTREAM_URL"),
        ("http://up stream/v1", {"proxy": "http://proxy.invalid:1"}, "FARM_UPSTREAM_URL"),
        ("https://upstream.invalid/v1", {"ca_bundle": "/nowhere/ca.pem"}, "FARM_CA_BUNDLE"),
        ("https://upstream.invalid/v1", {"proxy": "http://user:secret@proxy:8a"}, "FARM_UPSTREAM_PROXY"),
        ("https://upstream.invalid/v1", {"proxy": "ftp://proxy"}, "FARM_UPSTREAM_PROXY"),
    ],
)
def test_setting_that_allows_no_request_is_named_and_logged_once(
    url: str, options: dict[str, str], setting: str, caplog: pytest.LogCaptureFixture
):
    route = UpstreamRoute(url, **options)
    for _ in range(3):
        with pytest.raises(UpstreamMisconfigured, match=f"^{setting}$"):
            UpstreamConnection(route, 5)
    (line,) = caplog.messages
    assert setting in line
    assert "secret" not in line


def test_redirect_is_returned_as_a_response(server: Server):
    server.respond = lambda *_: REDIRECT
    assert send(UpstreamConnection(UpstreamRoute(server.url), 5)) == 307
    assert sum(map(len, server.heads)) == 1


def test_refused_connection_is_unreachable_at_once():
    with pytest.raises(UpstreamUnreachable) as caught:
        send(UpstreamConnection(UpstreamRoute(f"http://127.0.0.1:{free_port()}"), 5))
    assert caught.value.code == "upstream_unreachable"


def test_proxy_of_the_environment_gets_the_absolute_url(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert send(UpstreamConnection(UpstreamRoute("http://upstream.invalid/v1"), 5)) == 200
    ((head,),) = server.heads
    assert head.startswith("POST http://upstream.invalid/v1/chat/completions?k=v HTTP/1.1\r\n")
    assert "\r\nHost: upstream.invalid\r\n" in head


def test_request_head_and_body_are_sent_together(server: Server, monkeypatch: pytest.MonkeyPatch):
    sent: list[bytes] = []
    send = gevent.socket.socket.send

    def record(self: gevent.socket.socket, data: bytes, *more: object) -> int:
        sent.append(bytes(data))
        return send(self, data, *more)

    monkeypatch.setattr(gevent.socket.socket, "send", record)
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    for _ in range(3):
        assert b"".join(iter_body(upstream.call(build_request("r"), b"body", "token"))) == b"{}"
    requests = [data for data in sent if data != OK]
    assert [(data[:5], data[-4:]) for data in requests] == [(b"POST ", b"body")] * 3
    assert len(server.heads) == 1


def test_large_request_body_arrives_complete(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    response = upstream.call(build_request("r"), bytes(300_000) + b"body", "token")
    assert b"".join(iter_body(response)) == b"{}"
    assert "content-length: 300004" in server.heads[0][0].lower()


def test_unexpected_bytes_end_the_kept_connection(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    assert b"".join(iter_body(upstream.call(build_request("r"), b"body", "token"))) == b"{}"
    server.clients[0].sendall(REDIRECT)
    gevent.sleep(0.05)
    response = upstream.call(build_request("r"), b"body", "token")
    assert response.status == 200
    assert b"".join(iter_body(response)) == b"{}"
    assert len(server.heads) == 2


def test_request_can_be_cancelled_right_before_it_is_sent(server: Server):
    connections_seen: list[int] = []

    def check() -> None:
        gevent.sleep(0.05)
        connections_seen.append(len(server.heads))
        if len(connections_seen) == 2:
            raise Cancelled("lease_lost")

    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0, before_send=check)
    assert send(upstream) == 200
    with pytest.raises(Cancelled):
        send(upstream)
    assert connections_seen == [1, 1]
    assert sum(map(len, server.heads)) == 1
    assert send(upstream) == 200


# Responses

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def fetch_body(connection: UpstreamConnection) -> bytes:
    response = connection.call(build_request(), b"body", "a-token")
    try:
        return b"".join(iter_body(response))
    finally:
        response.close()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (OK, b"{}"),
        (CHUNKED + b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\n", b"abcde"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: behind\r\n\r\n", b"abc"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}", b"{}"),
    ],
)
def test_response_is_read_however_it_is_split_into_packets(server: Server, response: bytes, expected: bytes):
    server.respond = lambda *_: response
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert fetch_body(upstream) == expected

    def drip(connection: int, number: int) -> bytes:
        for at in range(len(response) - 1):
            server.clients[connection].sendall(response[at : at + 1])
            gevent.sleep(0.0005)
        return response[-1:]

    server.respond = drip
    assert fetch_body(upstream) == expected
    server.respond = lambda *_: OK
    assert fetch_body(upstream) == b"{}"
    assert len(server.heads) == 1, "on one connection"


@pytest.mark.parametrize("encoding", [b"", b"content-encoding: gzip\r\n", b"content-encoding: X-GZIP\r\n"])
def test_compressed_response_is_decompressed_whatever_its_headers_say(server: Server, encoding: bytes):
    body = gzip.compress(b"abcde" * 1000)
    body = body if not encoding else gzip.compress(body)
    head = b"HTTP/1.1 200 OK\r\n" + encoding + b"content-length: %d\r\n\r\n" % len(body)
    server.respond = lambda *_: head + body
    assert fetch_body(UpstreamConnection(UpstreamRoute(server.url), 5)) == b"abcde" * 1000


def test_compressed_response_that_breaks_off_is_truncated(server: Server):
    body = gzip.compress(b"abcde" * 1000)[:-9]
    server.respond = lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with pytest.raises(ResponseTruncated):
        fetch_body(UpstreamConnection(UpstreamRoute(server.url), 5))


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"3\r\nab",
        CHUNKED + b"3\r\nabc\r\n0\r\n",
        CHUNKED + b"3\r\nabc\r\nno number\r\n",
    ],
)
def test_response_body_that_breaks_off_is_truncated(server: Server, response: bytes):
    server.respond = lambda *_: close_after(server, response)
    with pytest.raises(ResponseTruncated):
        fetch_body(UpstreamConnection(UpstreamRoute(server.url), 5))


def close_after(server: Server, response: bytes) -> None:
    server.clients[-1].sendall(response)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + bytes([120]) * 2 * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    ],
)
def test_invalid_response_head_drops_the_connection(server: Server, response: bytes):
    server.respond = lambda *_: close_after(server, response)
    with pytest.raises(ConnectionDropped):
        fetch_body(UpstreamConnection(UpstreamRoute(server.url), 5))


def test_response_without_a_length_ends_with_its_connection(server: Server):
    server.respond = lambda *_: close_after(server, b"HTTP/1.0 200 OK\r\n\r\nall of it")
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [fetch_body(upstream), fetch_body(upstream)] == [b"all of it"] * 2
    assert len(server.heads) == 2


def test_connection_that_the_upstream_closes_is_not_reused(server: Server):
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    server.respond = lambda *_: closing
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [fetch_body(upstream), fetch_body(upstream)] == [b"{}"] * 2
    assert [len(heads) for heads in server.heads] == [1, 1]


def test_unsolicited_response_is_discarded(server: Server):
    """It arrives in one packet with the expected response, and must not be read as the response to the next request."""
    other = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother"
    server.respond = lambda *_: OK + other
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [fetch_body(upstream), fetch_body(upstream)] == [b"{}"] * 2
    assert [len(heads) for heads in server.heads] == [1, 1]


def test_response_that_is_not_read_to_its_end_closes_its_connection(server: Server):
    server.respond = lambda connection, _: CHUNKED + b"3\r\nabc\r\n" if connection == 0 else OK
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    response = upstream.call(build_request(), b"body", "a-token")
    assert next(iter_body(response)) == b"abc"
    response.close()
    assert fetch_body(upstream) == b"{}"
    assert len(server.heads) == 2


def test_finished_response_leaves_no_reference_cycle(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert fetch_body(upstream) == b"{}"
    gc.collect()
    before = count_response_objects()
    gc.disable()
    try:
        for _ in range(20):
            assert fetch_body(upstream) == b"{}"
        assert count_response_objects() == before and before, "http.client keeps the last response, as before"
    finally:
        gc.enable()


def count_response_objects() -> Counter[str]:
    """Live responses and parser events, by class."""
    classes = (type(item) for item in gc.get_objects())
    return Counter(cls.__name__ for cls in classes if cls in (LlhttpResponse, ParserEvents))


def test_compressed_response_is_decompressed(server: Server):
    packed = gzip.compress(b"much " * 10_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    server.respond = lambda *_: head + packed
    assert fetch_body(UpstreamConnection(UpstreamRoute(server.url), 5)) == b"much " * 10_000


@pytest.fixture
def secure(server: Server, tmp_path: Path) -> tuple[str, str]:
    """The server over TLS: its URL and the file of its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "tls.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.greenlet.kill()
    server.listener = context.wrap_socket(server.listener, server_side=True)
    server.greenlet = gevent.spawn(server.accept)
    return server.url.replace("http://127.0.0.1", "https://localhost"), str(file)


def test_response_over_tls_is_read_to_its_end(server: Server, secure: tuple[str, str]):
    """Decrypted data that one read leaves in the TLS library is invisible to the operating system's poll."""
    url, bundle = secure
    whole = bytes(range(256)) * 1000
    server.respond = lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole
    upstream = UpstreamConnection(UpstreamRoute(url, ca_bundle=bundle), 5)
    assert [fetch_body(upstream) == whole, fetch_body(upstream) == whole] == [True, True]
    assert len(server.heads) == 1


def test_workers_of_a_pool_share_one_tls_context(server: Server, secure: tuple[str, str], monkeypatch):
    """Each would load the CA bundle once more, with every connection: 30 ms and 700 KB for a system's."""
    loaded: list[str] = []

    def record(context: ssl.SSLContext, **locations: str) -> None:
        loaded.append(str(locations))
        ssl.SSLContext.load_verify_locations(context, **locations)

    monkeypatch.setattr(UpstreamTlsContext, "load_verify_locations", record)
    url, bundle = secure
    server.respond = lambda *_: b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    route = UpstreamRoute(url, ca_bundle=bundle)
    assert [fetch_body(UpstreamConnection(route, 5)) for _ in range(3)] == [b"{}"] * 3
    token_session = create_shared_session(url, 1, ca_bundle=bundle)
    assert [token_session.post(url, data=b"body").content for _ in range(3)] == [b"{}"] * 3
    assert len(loaded) == 1


def test_certificate_of_another_authority_or_host_is_refused(secure: tuple[str, str]):
    url, bundle = secure
    for route in (UpstreamRoute(url), UpstreamRoute(url.replace("localhost", "127.0.0.1"), ca_bundle=bundle)):
        with pytest.raises(UpstreamUnreachable):
            fetch_body(UpstreamConnection(route, 5))


def test_ca_bundle_that_holds_no_certificate_is_named(secure: tuple[str, str], tmp_path: Path):
    (tmp_path / "empty.pem").write_text("no certificate\n")
    with pytest.raises(UpstreamMisconfigured, match="FARM_CA_BUNDLE"):
        UpstreamConnection(UpstreamRoute(secure[0], ca_bundle=str(tmp_path / "empty.pem")), 5)


def test_tls_connection_goes_through_a_proxys_tunnel(server: Server, secure: tuple[str, str]):
    url, bundle = secure
    connect_requests: list[bytes] = []

    def tunnel(client: socket.socket, _: object) -> None:
        connect_requests.append(client.recv(65_536))
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as target:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = gevent.spawn(forward, target, client)
            forward(client, target)
            back.kill()

    proxy = StreamServer(("127.0.0.1", 0), tunnel)
    proxy.start()
    try:
        route = UpstreamRoute(url, ca_bundle=bundle, proxy=f"http://127.0.0.1:{proxy.server_port}")
        upstream = UpstreamConnection(route, 5)
        assert [fetch_body(upstream), fetch_body(upstream)] == [b"{}"] * 2
        upstream.close()
    finally:
        proxy.stop()
    address = url.removeprefix("https://")
    assert [head.decode().split("\r\n")[0] for head in connect_requests] == [f"CONNECT {address} HTTP/1.0"]


def forward(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65_536):
        target.sendall(data)


class SocksProxy:
    """A SOCKS5 proxy (RFC 1928) with a password (RFC 1929); keeps the hosts it was asked for, connects to one port."""

    def __init__(self, target_port: int) -> None:
        self.hosts: list[str] = []
        self._target_port = target_port
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.address = f"user:pass@127.0.0.1:{self._server.server_port}"

    def _serve(self, client: socket.socket, _: object) -> None:
        file = client.makefile("rb")
        file.read(file.read(2)[1])
        client.sendall(b"\x05\x02")
        user = file.read(file.read(2)[1])
        password = file.read(file.read(1)[0])
        client.sendall(b"\x01\x00" if (user, password) == (b"user", b"pass") else b"\x01\x01")
        kind = file.read(4)[3]
        self.hosts.append(file.read(file.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(file.read(4)))
        file.read(2)
        with socket.create_connection(("127.0.0.1", self._target_port)) as target:
            client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            back = gevent.spawn(forward, target, client)
            forward(client, target)
            back.kill()

    def close(self) -> None:
        self._server.stop()


@pytest.mark.parametrize(("scheme", "host"), [("socks5h", "up.invalid"), ("socks5", "127.0.0.1")])
def test_connection_goes_through_a_socks_proxy(server: Server, scheme: str, host: str):
    """`socks5h` leaves the resolution of names to the proxy."""
    with closing(SocksProxy(server.listener.getsockname()[1])) as proxy:
        upstream = UpstreamConnection(UpstreamRoute(f"http://{host}/v1", proxy=f"{scheme}://{proxy.address}"), 5)
        assert [send(upstream), send(upstream)] == [200, 200]
        upstream.close()
    assert proxy.hosts == [host]
    assert len(server.heads) == 1


def test_tls_connection_goes_through_a_socks_proxy(server: Server, secure: tuple[str, str]):
    url, bundle = secure
    with closing(SocksProxy(server.listener.getsockname()[1])) as proxy:
        upstream = UpstreamConnection(UpstreamRoute(url, ca_bundle=bundle, proxy=f"socks5h://{proxy.address}"), 5)
        assert [fetch_body(upstream), fetch_body(upstream)] == [b"{}"] * 2
        upstream.close()
    assert proxy.hosts == ["localhost"]


def test_token_endpoint_is_reached_through_a_socks_proxy(server: Server):
    body = b'{"access_token": "at"}'
    server.respond = lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with closing(SocksProxy(server.listener.getsockname()[1])) as proxy:
        pool = PoolSettings(token_url="http://login.invalid/token")
        session = create_shared_session(pool.token_url, 4, f"socks5h://{proxy.address}")
        # The server takes a request for whole when it ends in `body`.
        assert TokenEndpoint(pool, session).refresh("body").access_token == "at"
    assert proxy.hosts == ["login.invalid"]


def test_socks_proxy_that_is_away_is_an_upstream_that_is_unreachable():
    route = UpstreamRoute("http://up.invalid/v1", proxy=f"socks5h://127.0.0.1:{free_port()}")
    with pytest.raises(UpstreamUnreachable):
        send(UpstreamConnection(route, 5))
