"""Connections find out within seconds that their peer has vanished."""

import socket
import sys

import pytest

from shared.network.tcp_keepalive import KeepAlive

KEEPALIVE = KeepAlive(idle=5, interval=2, probes=3)


def test_connection_breaks_after_all_probes():
    assert KEEPALIVE.timeout == 11


@pytest.mark.skipif(sys.platform != "linux", reason="names and values of Linux")
def test_data_in_flight_is_bounded_as_probes_are():
    expected = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
    assert KEEPALIVE.list_options() == expected
    assert KEEPALIVE.list_options_and_user_timeout() == {**expected, socket.TCP_USER_TIMEOUT: 11_000}


def test_macos_names_the_idle_time_otherwise(monkeypatch: pytest.MonkeyPatch):
    for name in ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name, raising=False)
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)
    assert KEEPALIVE.list_options_and_user_timeout()[0x10] == 5
