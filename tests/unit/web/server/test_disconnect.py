"""Callers whose host is gone are told from slow readers by what the kernel knows of the connection."""

import socket
import struct

import pytest

from web.server.disconnect import (
    VANISHED_AFTER_SECONDS,
    DisconnectWatcher,
    enable_keepalive,
    has_vanished,
    read_connection_info,
)


class FakeSocket:
    """A connection with these segments in flight, and this many seconds since the last acknowledgement."""

    def __init__(self, unacked: int, silent_for: float) -> None:
        info = bytearray(104)
        struct.pack_into("I", info, 24, unacked)
        struct.pack_into("I", info, 56, int(1000 * silent_for))
        self._info = bytes(info)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return self._info


@pytest.mark.parametrize(
    ("unacked", "silent_for", "expected"),
    [
        pytest.param(0, 3600, False, id="idle: keepalive probes it"),
        pytest.param(3, VANISHED_AFTER_SECONDS - 1, False, id="slow network"),
        pytest.param(3, VANISHED_AFTER_SECONDS + 1, True, id="vanished"),
    ],
)
def test_vanished_caller_has_data_in_flight_that_nobody_acknowledges(unacked: int, silent_for: float, expected: bool):
    assert has_vanished(read_connection_info(FakeSocket(unacked, silent_for))) is expected


def test_accepted_connections_are_probed_and_read_as_alive():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        enable_keepalive([listener])
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            accepted.sendall(b"x")
            assert not has_vanished(read_connection_info(accepted))


def test_vanished_caller_is_reported_once():
    gone: list[bool] = []
    watcher = DisconnectWatcher(FakeSocket(1, 60), lambda: gone.append(True))
    watcher.check()
    assert (gone, watcher in DisconnectWatcher.active) == ([True], False)
