"""Whatever goes wrong with a connection to Redis is a RedisError, so that no OSError has to be taken for one."""

import ast
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from redis.exceptions import RedisError

from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect, create_dedicated_pool
from tests.environment import free_port
from workers.worker.blocking_pop import BlockingPop

ROOT = Path(__file__).parents[4]


@pytest.fixture
def broken_server() -> Iterator[str]:
    """A server that closes each connection in the middle of its first reply."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65_536)
                client.sendall(b"$5\r\nab")

    greenlet = gevent.spawn(serve)
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    greenlet.kill()
    listener.close()


def ping(url: str) -> object:
    return connect(url, timeout=1.0).ping()


def ping_through_pipeline(url: str) -> object:
    return AutoPipeline(connect(url, timeout=1.0)).execute("PING")


def pop(url: str) -> object:
    return BlockingPop(create_dedicated_pool(url), "a", "b").pop(1.0)


def subscribe(url: str) -> object:
    with connect(url, timeout=1.0).pubsub() as subscription:
        subscription.subscribe("channel")
        return subscription.get_message(timeout=1.0)


USES = (ping, ping_through_pipeline, pop, subscribe)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://host.invalid", "rediss://{}", "redis://{}"])
def test_connection_that_fails_is_an_error_of_redis(use: Callable[[str], object], url: str):
    with pytest.raises(RedisError):
        use(url.format(f"127.0.0.1:{free_port()}"))


@pytest.mark.parametrize("use", USES)
def test_connection_that_breaks_is_an_error_of_redis(use: Callable[[str], object], broken_server: str):
    with pytest.raises(RedisError):
        use(broken_server)


@pytest.mark.parametrize("package", ["shared", "web", "workers"])
def test_no_module_takes_an_oserror_for_one_of_redis(package: str):
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Tuple):
                names = {ast.unparse(name) for name in node.type.elts}
                assert not {"OSError", "RedisError"} <= names, f"{file}:{node.lineno}"
