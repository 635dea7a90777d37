"""The way to the upstream: what is sent where, over which connection, and what its failures are called."""

import gc
import gzip
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
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

from tests.builders import build_request
from tests.conftest import free_port
from workers.attempt.cancel_scope import Cancelled
from workers.upstream.client import ResponseTruncated, UpstreamConnection, UpstreamRoute, UpstreamUnreachable, iter_body
from workers.upstream.http_response import MAX_HEAD_BYTES, LlhttpResponse, ParserEvents

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
MOVED = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"


class Server:
    """Answers each request of each connection by a script: bytes, or None to close without an answer."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        #: Heads of the requests, by connection.
        self.seen: list[list[str]] = []
        self.clients: list[socket.socket] = []
        self.answers: Callable[[int, int], bytes | None] = lambda *_: OK
        self.greenlet = gevent.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            self.clients.append(client)
            self.seen.append([])
            gevent.spawn(self._serve, client, len(self.seen) - 1)

    def _serve(self, client: socket.socket, connection: int) -> None:
        with client:
            while True:
                received = b""
                while not received.endswith(b"body"):
                    part = client.recv(65_536)
                    if not part:
                        return
                    received += part
                self.seen[connection].append(received.partition(b"\r\n\r\n")[0].decode())
                answer = self.answers(connection, len(self.seen[connection]))
                if answer is None:
                    return
                client.sendall(answer)

    def close(self) -> None:
        self.greenlet.kill()
        self.listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def ask(connection: UpstreamConnection) -> int:
    response = connection.call(build_request(), b"body", "a-token")
    assert b"".join(iter_body(response)) in (b"{}", b"")
    response.close()
    return response.status


def test_a_request_has_the_upstreams_path_the_token_and_nothing_of_a_library(server: Server):
    assert ask(UpstreamConnection(UpstreamRoute(f"{server.url}/base/v1"), 5)) == 200
    ((head,),) = server.seen
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


def test_a_kept_connection_that_was_closed_while_idle_is_no_failure(server: Server):
    server.answers = lambda _, number: OK if number == 1 else None
    connection = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [ask(connection), ask(connection)] == [200, 200]
    assert [len(heads) for heads in server.seen] == [2, 1] or [len(heads) for heads in server.seen] == [1, 1]


def test_an_upstream_that_always_closes_is_asked_twice_and_not_for_ever(server: Server):
    server.answers = lambda *_: None
    with pytest.raises(UpstreamUnreachable):
        ask(UpstreamConnection(UpstreamRoute(server.url), 5))
    assert sum(map(len, server.seen)) == 2


def test_a_redirect_is_an_answer(server: Server):
    server.answers = lambda *_: MOVED
    assert ask(UpstreamConnection(UpstreamRoute(server.url), 5)) == 307
    assert sum(map(len, server.seen)) == 1


def test_nobody_there_is_unreachable_at_once():
    with pytest.raises(UpstreamUnreachable) as found:
        ask(UpstreamConnection(UpstreamRoute(f"http://127.0.0.1:{free_port()}"), 5))
    assert found.value.code == "upstream_unreachable"


def test_a_proxy_of_the_environment_is_asked_by_the_whole_address(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert ask(UpstreamConnection(UpstreamRoute("http://upstream.invalid/v1"), 5)) == 200
    ((head,),) = server.seen
    assert head.startswith("POST http://upstream.invalid/v1/chat/completions?k=v HTTP/1.1\r\n")
    assert "\r\nHost: upstream.invalid\r\n" in head


def test_head_and_body_travel_together(server: Server, monkeypatch: pytest.MonkeyPatch):
    sent: list[bytes] = []
    send = gevent.socket.socket.send

    def see(self: gevent.socket.socket, data: bytes, *more: object) -> int:
        sent.append(bytes(data))
        return send(self, data, *more)

    monkeypatch.setattr(gevent.socket.socket, "send", see)
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    for _ in range(3):
        assert b"".join(iter_body(upstream.call(build_request("r"), b"body", "token"))) == b"{}"
    asked = [data for data in sent if data != OK]
    assert [(data[:5], data[-4:]) for data in asked] == [(b"POST ", b"body")] * 3
    assert len(server.seen) == 1


def test_a_large_body_arrives_whole(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    response = upstream.call(build_request("r"), bytes(300_000) + b"body", "token")
    assert b"".join(iter_body(response)) == b"{}"
    assert "content-length: 300004" in server.seen[0][0].lower()


def test_bytes_that_nobody_asked_for_end_the_kept_connection(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0)
    assert b"".join(iter_body(upstream.call(build_request("r"), b"body", "token"))) == b"{}"
    server.clients[0].sendall(MOVED)
    gevent.sleep(0.05)
    answered = upstream.call(build_request("r"), b"body", "token")
    assert answered.status == 200
    assert b"".join(iter_body(answered)) == b"{}"
    assert len(server.seen) == 2


def test_a_request_is_called_off_when_nothing_but_the_sending_is_left(server: Server):
    looked: list[int] = []

    def look() -> None:
        gevent.sleep(0.05)
        looked.append(len(server.seen))
        if len(looked) == 2:
            raise Cancelled("lease_lost")

    upstream = UpstreamConnection(UpstreamRoute(server.url), 1.0, before_send=look)
    assert ask(upstream) == 200
    with pytest.raises(Cancelled):
        ask(upstream)
    assert looked == [1, 1]
    assert sum(map(len, server.seen)) == 1
    assert ask(upstream) == 200


# Answers, as they come over the wire

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def body(connection: UpstreamConnection) -> bytes:
    response = connection.call(build_request(), b"body", "a-token")
    try:
        return b"".join(iter_body(response))
    finally:
        response.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, b"{}"),
        (CHUNKED + b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\n", b"abcde"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: behind\r\n\r\n", b"abc"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}", b"{}"),
    ],
)
def test_an_answer_is_read_however_it_is_cut_into_packets(server: Server, answer: bytes, expected: bytes):
    server.answers = lambda *_: answer
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert body(upstream) == expected

    def drip(connection: int, number: int) -> bytes:
        for at in range(len(answer) - 1):
            server.clients[connection].sendall(answer[at : at + 1])
            gevent.sleep(0.0005)
        return answer[-1:]

    server.answers = drip
    assert body(upstream) == expected
    server.answers = lambda *_: OK
    assert body(upstream) == b"{}"
    assert len(server.seen) == 1, "over one connection"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"3\r\nab",
        CHUNKED + b"3\r\nabc\r\n0\r\n",
        CHUNKED + b"3\r\nabc\r\nno number\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_no_whole_one(server: Server, answer: bytes):
    server.answers = lambda *_: close_after(server, answer)
    with pytest.raises(ResponseTruncated):
        body(UpstreamConnection(UpstreamRoute(server.url), 5))


def close_after(server: Server, answer: bytes) -> None:
    server.clients[-1].sendall(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + bytes([120]) * 2 * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    ],
)
def test_what_is_no_head_is_no_answer(server: Server, answer: bytes):
    server.answers = lambda *_: close_after(server, answer)
    with pytest.raises(UpstreamUnreachable):
        body(UpstreamConnection(UpstreamRoute(server.url), 5))


def test_a_body_without_a_length_ends_with_the_connection(server: Server):
    server.answers = lambda *_: close_after(server, b"HTTP/1.0 200 OK\r\n\r\nall of it")
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [body(upstream), body(upstream)] == [b"all of it"] * 2
    assert len(server.seen) == 2


def test_a_connection_that_the_upstream_closes_is_not_used_again(server: Server):
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    server.answers = lambda *_: closing
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [body(upstream), body(upstream)] == [b"{}"] * 2
    assert [len(heads) for heads in server.seen] == [1, 1]


def test_an_answer_that_nobody_asked_for_reaches_nobody(server: Server):
    """It comes in one packet with the one that was asked for, and is not taken for the answer to the next request."""
    other = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother"
    server.answers = lambda *_: OK + other
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert [body(upstream), body(upstream)] == [b"{}"] * 2
    assert [len(heads) for heads in server.seen] == [1, 1]


def test_an_answer_that_is_left_takes_its_connection_along(server: Server):
    server.answers = lambda connection, _: CHUNKED + b"3\r\nabc\r\n" if connection == 0 else OK
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    response = upstream.call(build_request(), b"body", "a-token")
    assert next(iter_body(response)) == b"abc"
    response.close()
    assert body(upstream) == b"{}"
    assert len(server.seen) == 2


def test_an_answer_that_is_over_leaves_nothing_that_only_a_search_for_cycles_finds(server: Server):
    upstream = UpstreamConnection(UpstreamRoute(server.url), 5)
    assert body(upstream) == b"{}"
    gc.collect()
    before = kept()
    gc.disable()
    try:
        for _ in range(20):
            assert body(upstream) == b"{}"
        assert kept() == before and before, "http.client keeps the last one, as before"
    finally:
        gc.enable()


def kept() -> Counter[str]:
    """Responses, and what their parsers have read, that are in memory."""
    kinds = (type(thing) for thing in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if kind in (LlhttpResponse, ParserEvents))


def test_a_packed_answer_is_unpacked_though_nobody_asked_for_it(server: Server):
    packed = gzip.compress(b"much " * 10_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    server.answers = lambda *_: head + packed
    assert body(UpstreamConnection(UpstreamRoute(server.url), 5)) == b"much " * 10_000


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
    server.greenlet = gevent.spawn(server._accept)
    return server.url.replace("http://127.0.0.1", "https://localhost"), str(file)


def test_an_answer_over_tls_is_read_to_its_end(server: Server, secure: tuple[str, str]):
    """More than one read takes lies decrypted in the TLS library, where the system does not know of it."""
    url, bundle = secure
    whole = bytes(range(256)) * 1000
    server.answers = lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole
    upstream = UpstreamConnection(UpstreamRoute(url, ca_bundle=bundle), 5)
    assert [body(upstream) == whole, body(upstream) == whole] == [True, True]
    assert len(server.seen) == 1


def test_tls_goes_through_a_tunnel_that_a_proxy_opens(server: Server, secure: tuple[str, str]):
    url, bundle = secure
    asked: list[bytes] = []

    def tunnel(client: socket.socket, _: object) -> None:
        asked.append(client.recv(65_536))
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as target:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = gevent.spawn(pipe, target, client)
            pipe(client, target)
            back.kill()

    proxy = StreamServer(("127.0.0.1", 0), tunnel)
    proxy.start()
    try:
        way = UpstreamRoute(url, ca_bundle=bundle, proxy=f"http://127.0.0.1:{proxy.server_port}")
        upstream = UpstreamConnection(way, 5)
        assert [body(upstream), body(upstream)] == [b"{}"] * 2
        upstream.close()
    finally:
        proxy.stop()
    address = url.removeprefix("https://")
    assert [one.decode().split("\r\n")[0] for one in asked] == [f"CONNECT {address} HTTP/1.0"]


def pipe(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65_536):
        target.sendall(data)
