"""Fixtures for every kind of test: a real Redis and a real simulator."""

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from launcher.processes import redis_server
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import connect
from tests.upstream import Upstream, run_upstream

#: Path of the server on which tests run that start one in their own process; unset: the bundled one.
SERVER_VARIABLE = "TEST_REDIS_SERVER"


@pytest.fixture(scope="session", autouse=True)
def chosen_server() -> Iterator[None]:
    """Puts the server of TEST_REDIS_SERVER in the bundled one's place."""
    with pytest.MonkeyPatch.context() as patch:
        if program := os.environ.get(SERVER_VARIABLE):
            patch.setattr(redis_server, "find_programs", lambda: [program])
        yield


@pytest.fixture(scope="session")
def redis_url(chosen_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("redis")
    server = redis_server.start(data)
    yield redis_server.build_url(data)
    server.terminate()
    server.wait()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture
def unsealer(redis: Redis) -> Unsealer:
    """An unsealer whose sealing key is in Redis."""
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(redis)
    return unsealer


@pytest.fixture(scope="session")
def simulator() -> Iterator[Upstream]:
    with run_upstream("--accounts", "6", "--rotate") as upstream:
        yield upstream


@pytest.fixture
def upstream(simulator: Upstream) -> Upstream:
    """A simulator of six accounts that rotates its refresh tokens, as it is after its start."""
    simulator.restart()
    return simulator
