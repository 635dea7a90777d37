"""Runs a Redis of one test or module, whose settings may be changed and whose round trips counted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection

from launcher.processes import redis_server
from shared.errors import StoreUnavailable
from shared.redis_connection.client import check_server, connect
from tests.waiting import eventually


@contextmanager
def run_redis(home: Path) -> Iterator[str]:
    """Runs the server with an append-only file and yields its URL."""
    socket = home / "redis.sock"
    options = {"port": "0", "unixsocket": str(socket), "dir": str(home), "save": "", "appendonly": "yes"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    program = redis_server.find_programs()[0]
    server = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    url = f"unix://{socket}"
    client = connect(url, size=1)

    def is_up() -> bool:
        assert server.poll() is None, f"{program} has ended"
        with suppress(StoreUnavailable):
            check_server(client)
            return True
        return False

    eventually(is_up)
    client.connection_pool.disconnect()
    yield url
    # It refuses to end while it writes a first append-only file.
    server.kill()
    server.wait()


@dataclass
class SendCount:
    """How often commands were sent."""

    sends: int = 0


@contextmanager
def count_sends(redis: Redis) -> Iterator[SendCount]:
    """Counts how often this process sends commands to the server of `redis`: a pipeline counts once.

    The server can't tell: it reads a pipeline in several parts, and closed connections too.
    """
    path, count = redis.connection_pool.connection_kwargs["path"], SendCount()
    send_packed_command = AbstractConnection.send_packed_command

    def send(connection: Any, *args: Any, **options: Any) -> None:
        if connection.path == path:
            count.sends += 1
        send_packed_command(connection, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", send)
        yield count
