"""Nobody can use up the connections that a front accepts."""

import json
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gunicorn.workers.ggevent import GeventWorker

from web.server.client_address import TrustedProxies
from web.server.connection_limit import ConnectionLimit
from web.server.gunicorn_worker import FarmGunicornWorker

PROXY = "192.0.2.9"


def open_connections(limit: ConnectionLimit, addresses: list[str]) -> list[bool]:
    """Whether each of them is admitted, while those before it are open."""
    with ExitStack() as opened:
        return [opened.enter_context(limit.hold(address)) for address in addresses]


@pytest.mark.parametrize(
    ("addresses", "admitted"),
    [
        (["192.0.2.1"] * 3 + ["192.0.2.2"], [True, True, False, True]),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], [True, True, False, True]),
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], [True, True, False]),
        ([PROXY] * 5, [True] * 5),
        (["127.0.0.1", "::1"] * 3, [True] * 6),
    ],
)
def test_an_address_holds_a_bounded_number(addresses: list[str], admitted: list[bool]):
    limit = ConnectionLimit(2, TrustedProxies([PROXY]))
    assert open_connections(limit, addresses) == admitted
    assert open_connections(limit, addresses) == admitted


def test_callers_of_the_farms_own_proxy_are_told_apart():
    limit = ConnectionLimit(1, TrustedProxies([PROXY]))
    with limit.hold("", ["203.0.113.9, 192.0.2.1"]) as first, limit.hold("", ["192.0.2.1"]) as second:
        assert (first, second) == (True, False)
        assert open_connections(limit, ["192.0.2.1", "192.0.2.2"]) == [False, True]
        with (
            limit.hold("", ["192.0.2.2"]) as another,
            limit.hold("", ["127.0.0.1"]) as own,
            limit.hold("", []) as local,
        ):
            assert (another, own, local) == (True, True, True)


def test_bound_can_be_switched_off():
    assert all(open_connections(ConnectionLimit(0, TrustedProxies([])), ["192.0.2.1"] * 50))


def test_surplus_connection_is_refused_until_another_one_closes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GeventWorker, "handle", lambda *args: args[2].recv(1))
    worker: Any = FarmGunicornWorker.__new__(FarmGunicornWorker)
    worker.front = SimpleNamespace(connections=ConnectionLimit(1, TrustedProxies([])))

    def connect(sockets: ExitStack) -> tuple[socket.socket, gevent.Greenlet]:
        ours, theirs = (sockets.enter_context(each) for each in socket.socketpair())
        greenlet = gevent.spawn(worker.handle, None, theirs, ("192.0.2.1", 4711))
        gevent.sleep(0)
        return ours, greenlet

    with ExitStack() as sockets:
        first, served = connect(sockets)
        surplus, refused = connect(sockets)
        refused.join(30)
        head, _, body = surplus.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        first.close()
        served.join(30)
        _, admitted = connect(sockets)
        assert not admitted.dead
        admitted.kill()
