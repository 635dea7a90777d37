"""A caller that has only ended its sending gets its reply; one that has closed its connection frees the worker (I8)."""

import json
import socket

import gevent
import pytest

from tests.integration.web.server.front_server import FrontServer, build_request, read_all
from tests.waiting import eventually
from web.server import disconnect

BODY = json.dumps({"model": "m", "messages": []}).encode()
STREAM = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
REPLY = b'{"choices": []}'


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-closed connection is probed at every check."""
    monkeypatch.setattr(disconnect, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(disconnect, "PROBE_GROWTH", 0.0)


def count_waiting(server: FrontServer) -> int:
    return server.front.services.request_services.queue.count_waiting("default")


def half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    gevent.sleep(0.5)


def split_interim(reply: bytes) -> tuple[int, bytes]:
    """How many interim responses come first, and the final response."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    count = 0
    while reply.startswith(interim):
        reply, count = reply[len(interim) :], count + 1
    return count, reply


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_caller_that_ends_its_sending_gets_the_reply(server: FrontServer, version: str):
    connection = server.send(build_request(server.front.secret, BODY, version=version))
    eventually(lambda: count_waiting(server) == 1)
    half_close(connection)
    server.front.reply(200, "application/json", REPLY)
    reply = read_all(connection)
    assert reply.startswith(f"HTTP/{version} 200 OK\r\n".encode())
    assert reply.endswith(b"\r\n\r\n" + REPLY)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_probes_are_part_of_a_well_formed_reply_however_many(server: FrontServer, version: str, quick_probes: None):
    connection = server.send(build_request(server.front.secret, BODY, version=version))
    connection.shutdown(socket.SHUT_WR)
    received = b""
    while len(received) < (9 if version == "1.0" else 40):
        received += connection.recv(65_536)
    server.front.reply(200, "application/json", REPLY)
    interims, reply = split_interim(received + read_all(connection))
    assert reply.startswith(f"HTTP/{version} 200 OK\r\n".encode())
    assert reply.endswith(b"\r\n\r\n" + REPLY)
    assert (interims >= 1) == (version == "1.1")


def test_probes_of_a_stream_are_part_of_its_chunks(server: FrontServer, quick_probes: None):
    connection = server.send(build_request(server.front.secret, STREAM))
    first, second = b'data: {"choices": [1]}\n\n', b"data: [DONE]\n\n"
    eventually(lambda: count_waiting(server) == 1)
    request_id = server.front.reply(200, "text/event-stream", first, end=None)
    received = b""
    while first not in received:
        received += connection.recv(65_536)
    connection.shutdown(socket.SHUT_WR)
    while not received.endswith(b"\r\n0"):
        received += connection.recv(65_536)
    gevent.sleep(1)
    server.front.continue_reply(request_id, 2, second)
    head, _, body = (received + read_all(connection)).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert decode_chunks(body) == first + second


def decode_chunks(data: bytes) -> bytes:
    decoded = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        assert 1 <= len(size) <= 16
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        if not length:
            return decoded
        decoded, data = decoded + data[:length], data[length + 2 :]


@pytest.mark.parametrize("body", [BODY, STREAM])
@pytest.mark.parametrize("ends_first", [False, True])
def test_caller_that_closes_leaves_the_queue(server: FrontServer, body: bytes, ends_first: bool):
    connection = server.send(build_request(server.front.secret, body))
    eventually(lambda: count_waiting(server) == 1)
    if ends_first:
        half_close(connection)
        assert count_waiting(server) == 1
    connection.close()
    eventually(lambda: count_waiting(server) == 0)
    eventually(lambda: len(server.front.services.hub) == 0)


def test_caller_that_closes_after_pipelining_leaves_the_queue(server: FrontServer):
    connection = server.send(build_request(server.front.secret, BODY))
    eventually(lambda: count_waiting(server) == 1)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    gevent.sleep(0.3)
    connection.close()
    eventually(lambda: count_waiting(server) == 0)


def test_caller_that_closes_in_a_silent_stream_stops_it(server: FrontServer):
    connection = server.send(build_request(server.front.secret, STREAM))
    eventually(lambda: count_waiting(server) == 1)
    server.front.reply(200, "text/event-stream", b"data: {}\n\n", end=None)
    assert connection.recv(65_536)
    connection.close()
    eventually(lambda: len(server.front.services.hub) == 0)
