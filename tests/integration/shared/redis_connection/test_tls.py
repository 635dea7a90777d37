"""Connections by rediss:// share one SSLContext, which verifies the server like one of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from shared.redis_connection.client import connect, create_dedicated_pool
from simulator.certificate import create_tls_context
from tests import internals
from tests.tls_relay import TlsRelay, run_tls_relay


@pytest.fixture
def relay(redis_url: str, tmp_path: Path) -> Iterator[TlsRelay]:
    with run_tls_relay(redis_url.removeprefix("unix://"), tmp_path / "redis.pem") as relay:
        yield relay


def test_all_connections_share_one_context(relay: TlsRelay):
    url = f"rediss://localhost:{relay.port}/0?ssl_ca_certs={relay.certificate}"
    pools = [connect(url).connection_pool, connect(url, size=2).connection_pool, create_dedicated_pool(url)]
    connections = [pool.make_connection() for pool in pools for _ in range(2)]
    for connection in connections:
        connection.connect()
    assert len({internals.tls_context(connection) for connection in connections}) == 1
    for connection in connections:
        connection.disconnect()


def test_server_is_verified(relay: TlsRelay, tmp_path: Path):
    create_tls_context(tmp_path / "other.pem")
    trusted, other = relay.certificate, tmp_path / "other.pem"
    for host, certificate, options, is_trusted in (
        ("127.0.0.1", trusted, "", True),
        ("127.0.0.2", trusted, "", False),
        ("127.0.0.2", trusted, "&ssl_check_hostname=no", True),
        ("127.0.0.1", other, "", False),
        ("127.0.0.1", other, "&ssl_cert_reqs=none", True),
    ):
        client = connect(f"rediss://{host}:{relay.port}/0?ssl_ca_certs={certificate}{options}")
        connection = client.connection_pool.make_connection()
        if is_trusted:
            connection.connect()
            connection.disconnect()
        else:
            with pytest.raises(RedisError, match="certificate verify failed"):
                connection.connect()
