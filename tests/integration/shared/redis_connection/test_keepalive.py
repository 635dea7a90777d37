"""A connection to a Redis that has vanished breaks, also one that only reads."""

import socket
import sys

import pytest
from redis import Redis

from shared.redis_connection.client import connect, create_dedicated_pool
from tests import internals
from tests.half_open_relay import run_half_open_relay


@pytest.mark.skipif(sys.platform != "linux", reason="option names of Linux")
def test_every_connection_is_probed_and_bounds_data_in_flight(redis: Redis, redis_url: str):
    with run_half_open_relay(redis_url.removeprefix("unix://")) as relay:
        for pool in (connect(relay.url).connection_pool, create_dedicated_pool(relay.url)):
            connection = pool.make_connection()
            connection.connect()
            sock = internals.redis_socket(connection)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            named = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            options = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in named]
            assert options == [5, 2, 3, 11_000]
            connection.disconnect()
