"""Runs a Redis of one test module, whose settings its tests may change."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
