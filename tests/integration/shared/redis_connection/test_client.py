"""How connections are opened."""

from collections.abc import Callable

import pytest
from redis import ConnectionPool

from shared.redis_connection.client import connect, create_dedicated_pool


@pytest.mark.parametrize("open_pool", [create_dedicated_pool, lambda url: connect(url).connection_pool])
def test_opening_a_connection_reads_no_file_of_a_package(
    open_pool: Callable[[str], ConnectionPool], redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr("redis.utils.get_lib_version")
    connection = open_pool(redis_url).make_connection()
    connection.connect()
    connection.send_command("CLIENT", "INFO")
    assert "lib-name=redis-py" in connection.read_response().decode()
    connection.disconnect()
