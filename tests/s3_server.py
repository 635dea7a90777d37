"""A real S3 server: `rclone serve s3`, which keeps objects as files of a directory."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from tests.environment import free_port
from tests.waiting import eventually

ACCESS_KEY_ID, SECRET = "AKIAFARMTESTS1234567", "secret-of-the-tests-0123456789-0123456789"
BUCKET = "bucket"
#: rclone answers a range with status 200, where RFC 9110 section 15.3.7 and S3 have 206.
WHOLE, PARTIAL = b"HTTP/1.1 200 OK", b"HTTP/1.1 206 Partial Content"


@dataclass(frozen=True)
class S3Server:
    """A running server, and the directory of its bucket."""

    port: int
    directory: Path

    def build_url(self, bucket: str = BUCKET, secret: str = SECRET) -> str:
        """The value of FARM_FILES_URL."""
        return f"s3://{ACCESS_KEY_ID}:{secret}@{bucket}/farm?endpoint=http://127.0.0.1:{self.port}"


def find_rclone() -> str:
    """Beside this python, where its wheel puts it, or on PATH."""
    beside = Path(sys.executable).with_name("rclone")
    program = str(beside) if beside.exists() else shutil.which("rclone")
    if program is None:
        pytest.fail("rclone is not installed: it comes with requirements-dev.lock")
    return program


@contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [find_rclone(), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--auth-key", f"{ACCESS_KEY_ID},{SECRET}", str(folder)])
    relay = StreamServer(("127.0.0.1", 0), handle=RangeRelay(port).serve)
    try:
        eventually(lambda: can_connect(port))
        relay.start()
        yield S3Server(relay.server_port, folder / BUCKET)
    finally:
        relay.stop(timeout=1)
        process.terminate()
        process.wait()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class RangeRelay:
    """Passes connections on, and gives replies to ranges the status that they should have."""

    def __init__(self, port: int) -> None:
        self._port = port

    def serve(self, client: Any, _: Any) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            passing = gevent.spawn(self._pass_requests, client, server)
            with contextlib.suppress(OSError):
                while data := server.recv(65_536):
                    if data.startswith(WHOLE) and b"content-range:" in data.lower():
                        data = PARTIAL + data.removeprefix(WHOLE)
                    client.sendall(data)
            passing.kill()

    def _pass_requests(self, client: Any, server: Any) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
