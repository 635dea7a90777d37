"""Fixtures of the integration tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bench.replicated_redis import ReplicatedRedis, run_replicated_redis
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import connect
from tests.integration.harness import WorkerHarness
from tests.own_redis import run_redis
from tests.shared_compilation import share_compilation
from tests.upstream import Upstream


@pytest.fixture(scope="session", autouse=True)
def short_boundaries() -> Iterator[None]:
    """Werkzeug's test client makes boundaries of forms with 72 characters now and then; RFC 2046 allows 70."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("werkzeug.test.random", lambda: 0.5)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_compilation() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_compilation(patch)
        yield


@pytest.fixture
def start_harness(
    redis: Redis, redis_url: str, unsealer: Unsealer, upstream: Upstream
) -> Iterator[Callable[..., WorkerHarness]]:
    """Starts worker harnesses; arguments are pool= and settings. Closes them after the test."""
    with ExitStack() as harnesses:

        def start(**options: Any) -> WorkerHarness:
            return harnesses.enter_context(closing(WorkerHarness(redis, redis_url, unsealer, upstream, **options)))

        yield start


@pytest.fixture
def harness(start_harness: Callable[..., WorkerHarness]) -> WorkerHarness:
    return start_harness()


@pytest.fixture
def own_redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis of this test alone: nothing that another test has left behind sends commands to it."""
    with run_redis(tmp_path) as url:
        yield url


@pytest.fixture
def own_redis(own_redis_url: str) -> Iterator[Redis]:
    client = connect(own_redis_url)
    yield client
    client.connection_pool.disconnect()


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRedis]:
    """A Redis with one replica and three sentinels."""
    with run_replicated_redis(tmp_path_factory.mktemp("replicated"), replicas=1) as replicated:
        yield replicated
