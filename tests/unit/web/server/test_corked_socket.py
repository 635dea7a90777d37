"""A corked socket sends the head of a response together with the start of its body."""

import socket
from collections.abc import Iterator

import pytest

from web.server.corked_socket import CHUNKED, LAST_CHUNK, MAX_JOINED_BYTES, MAX_ZEROS, CorkedSocket


class FakeSocket:
    """Records what is sent; accepts at most so many bytes per send."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.sent: list[bytes] = []
        self.max_bytes = max_bytes

    def send(self, data: bytes) -> int:
        self.sent.append(bytes(data[: self.max_bytes]))
        return min(len(data), self.max_bytes)

    def sendall(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def shutdown(self) -> str:
        self.sent.append(b"shut")
        return "done"


def test_head_and_first_body_chunk_are_one_send():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    for part in (b"head ", b"body ", b"more ", b"end"):
        corked.sendall(part)
    assert raw.sent == [b"head body ", b"more ", b"end"]


def test_head_without_a_body_is_sent_once():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    assert raw.sent == []
    corked.flush()
    corked.flush()
    assert raw.sent == [b"head"]


def test_socket_flushes_the_head_before_any_other_call():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    assert corked.shutdown() == "done"
    assert raw.sent == [b"head", b"shut"]


def test_partial_send_is_completed():
    raw = FakeSocket(max_bytes=7)
    corked = CorkedSocket(raw)
    corked.sendall(b"head ")
    corked.sendall(b"body")
    assert raw.sent == [b"head bo", b"dy"]


def test_large_body_is_sent_without_a_copy():
    raw = FakeSocket()
    corked = CorkedSocket(raw)
    corked.sendall(b"head")
    corked.sendall(bytes(MAX_JOINED_BYTES + 1))
    assert [len(data) for data in raw.sent] == [4, MAX_JOINED_BYTES + 1]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The caller's end of a connection, and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        with caller, listener.accept()[0] as ours:
            yield caller, ours


@pytest.mark.parametrize("probes", [0, 1, 9, 10, 24, 25, 26, 60])
def test_head_completes_what_probes_have_begun(pair: tuple[socket.socket, socket.socket], probes: int):
    caller, ours = pair
    corked = CorkedSocket(ours)
    assert all(corked.probe() for _ in range(probes))
    corked.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    corked.flush()
    received = b""
    while not received.endswith(b"200 OK\r\n\r\n"):
        received += caller.recv(65_536)
    interims = -(-max(0, probes - 9) // 25)
    assert received == interims * b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 200 OK\r\n\r\n"


def test_caller_of_http_1_0_gets_no_interim_response(pair: tuple[socket.socket, socket.socket]):
    caller, ours = pair
    corked = CorkedSocket(ours, 0)
    assert all(corked.probe() for _ in range(20))
    corked.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    corked.flush()
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += caller.recv(65_536)
    assert received == b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize("head", [b"head\r\n\r\n", b"head" + CHUNKED + b"\r\n"])
def test_only_the_size_of_a_chunk_gets_leading_zeros(pair: tuple[socket.socket, socket.socket], head: bytes):
    caller, ours = pair
    corked = CorkedSocket(ours)
    corked.sendall(head)
    corked.probe()
    corked.sendall(b"1\r\nx\r\n")
    assert all(corked.probe() for _ in range(2 * MAX_ZEROS))
    corked.sendall(LAST_CHUNK)
    corked.probe()
    ours.close()
    zeros = MAX_ZEROS * b"0" if CHUNKED in head else b""
    assert b"".join(iter(lambda: caller.recv(65_536), b"")) == head + b"1\r\nx\r\n" + zeros + LAST_CHUNK
