"""The way to the upstream: what is sent where, over which connection, and what its failures are called."""

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

import gevent
import pytest

from tests.conftest import free_port
from tests.integration.test_queue import request
from workers.interruption import Interrupted
from workers.upstream import UpstreamConnection, UpstreamUnreachable, chunks

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
    response = connection.call(request(), b"body", "a-token")
    assert b"".join(chunks(response)) in (b"{}", b"")
    response.close()
    return response.status


def test_a_request_has_the_upstreams_path_the_token_and_nothing_of_a_library(server: Server):
    assert ask(UpstreamConnection(f"{server.url}/base/v1", 5)) == 200
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
    connection = UpstreamConnection(server.url, 5)
    assert [ask(connection), ask(connection)] == [200, 200]
    assert [len(heads) for heads in server.seen] == [2, 1] or [len(heads) for heads in server.seen] == [1, 1]


def test_an_upstream_that_always_closes_is_asked_twice_and_not_for_ever(server: Server):
    server.answers = lambda *_: None
    with pytest.raises(UpstreamUnreachable):
        ask(UpstreamConnection(server.url, 5))
    assert sum(map(len, server.seen)) == 2


def test_a_redirect_is_an_answer(server: Server):
    server.answers = lambda *_: MOVED
    assert ask(UpstreamConnection(server.url, 5)) == 307
    assert sum(map(len, server.seen)) == 1


def test_nobody_there_is_unreachable_at_once():
    with pytest.raises(UpstreamUnreachable) as found:
        ask(UpstreamConnection(f"http://127.0.0.1:{free_port()}", 5))
    assert found.value.code == "upstream_unreachable"


def test_a_proxy_of_the_environment_is_asked_by_the_whole_address(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert ask(UpstreamConnection("http://upstream.invalid/v1", 5)) == 200
    ((head,),) = server.seen
    assert head.startswith("POST http://upstream.invalid/v1/chat/completions?k=v HTTP/1.1\r\n")
    assert "\r\nHost: upstream.invalid\r\n" in head


def test_head_and_body_travel_together(server: Server, monkeypatch: pytest.MonkeyPatch):
    sent: list[bytes] = []
    send = HTTPConnection.send
    monkeypatch.setattr(HTTPConnection, "send", lambda self, data: [sent.append(data), send(self, data)])
    upstream = UpstreamConnection(server.url, 1.0)
    for _ in range(3):
        assert b"".join(chunks(upstream.call(request("r"), b"body", "token"))) == b"{}"
    assert [(data[:5], data[-4:]) for data in sent] == [(b"POST ", b"body")] * 3
    assert len(server.seen) == 1


def test_a_large_body_arrives_whole(server: Server):
    upstream = UpstreamConnection(server.url, 1.0)
    response = upstream.call(request("r"), bytes(300_000) + b"body", "token")
    assert b"".join(chunks(response)) == b"{}"
    assert "content-length: 300004" in server.seen[0][0].lower()


def test_bytes_that_nobody_asked_for_end_the_kept_connection(server: Server):
    upstream = UpstreamConnection(server.url, 1.0)
    assert b"".join(chunks(upstream.call(request("r"), b"body", "token"))) == b"{}"
    server.clients[0].sendall(MOVED)
    gevent.sleep(0.05)
    answered = upstream.call(request("r"), b"body", "token")
    assert answered.status == 200
    assert b"".join(chunks(answered)) == b"{}"
    assert len(server.seen) == 2


def test_a_request_is_called_off_when_nothing_but_the_sending_is_left(server: Server):
    looked: list[int] = []

    def look() -> None:
        gevent.sleep(0.05)
        looked.append(len(server.seen))
        if len(looked) == 2:
            raise Interrupted("lease_lost")

    upstream = UpstreamConnection(server.url, 1.0, before_send=look)
    assert ask(upstream) == 200
    with pytest.raises(Interrupted):
        ask(upstream)
    assert looked == [1, 1]
    assert sum(map(len, server.seen)) == 1
    assert ask(upstream) == 200
