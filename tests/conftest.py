"""Fixtures for every kind of test: a real Redis of our own, a real simulator, free ports."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from launcher.processes import redis_server
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import connect
from tests.upstream import Upstream

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**settings: str) -> dict[str, str]:
    """An environment as poor as a new user's, with these settings; coverage of child processes is passed on."""
    kept = {
        name: os.environ[name]
        for name in ("HOME", "PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
        if name in os.environ
    }
    return {**kept, **settings}


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
    """The vault of a farm, claimed."""
    found = Unsealer("a secret key for tests")
    found.ensure_sealing_key(redis)
    return found


def start_simulator(*arguments: str) -> tuple["subprocess.Popen[str]", Upstream]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, Upstream(process.stdout.readline().strip().rpartition(" ")[2])


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A simulator of three accounts that rotates its refresh tokens."""
    process, found = start_simulator("--accounts", "3", "--rotate")
    yield found
    process.terminate()
    process.wait()
    if process.stdout:
        process.stdout.close()
