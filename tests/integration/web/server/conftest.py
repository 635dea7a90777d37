"""Fixtures of the tests of HTTP."""

from collections.abc import Iterator

import pytest

from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import connect
from tests.integration.web.server.front_server import FrontServer, serve
from tests.integration.web.test_app import Front


@pytest.fixture(scope="module")
def server(redis_url: str) -> Iterator[FrontServer]:
    """A front with one credential and no worker, for all tests of a module."""
    redis = connect(redis_url)
    redis.flushall()
    Unsealer("a secret key for tests").ensure_sealing_key(redis)
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, keepalive=60)
    with serve(front) as server:
        yield server
    front.close()
    redis.connection_pool.disconnect()
