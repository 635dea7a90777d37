"""A front that serves a port in this process, with the farm's gunicorn worker."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.config import Config
from gunicorn.glogging import Logger

from tests.integration.web.test_app import Front
from web.server.disconnect import check_callers
from web.server.gunicorn_worker import FarmGunicornWorker
from web.server.http_options import HTTP_OPTIONS


class FrontServer:
    """Serves the app of a front, whose workers are played by the test."""

    def __init__(self, front: Front) -> None:
        self.front = front
        config = Config()
        config.set("keepalive", 75)
        for name, value in HTTP_OPTIONS.items():
            config.set(name, value)
        worker = FarmGunicornWorker(0, os.getppid(), [], None, 60, config, Logger(config))
        worker.wsgi = front.app.wsgi_app
        listener = self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self._server = StreamServer(listener, handle=partial(worker.handle, listener))
        self._server.start()
        self._checks = gevent.spawn(self._check_callers)
        self._worker = worker

    def _check_callers(self) -> None:
        while True:
            gevent.sleep(0.05)
            check_callers()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(30)
        return connection

    def send(self, data: bytes) -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = self.connect()
        connection.sendall(data)
        return connection

    def close(self) -> None:
        self._checks.kill()
        self._server.stop(timeout=1)
        self._listener.close()
        self._worker.tmp.close()


@contextmanager
def serve(front: Front) -> Iterator[FrontServer]:
    server = FrontServer(front)
    try:
        yield server
    finally:
        server.close()


def build_request(secret: str, body: bytes, *headers: str, version: str = "1.1", **values: Any) -> bytes:
    """The bytes of a chat request."""
    path = values.pop("path", "/v1/chat/completions")
    lines = [
        f"POST {path} HTTP/{version}",
        "host: farm.example",
        f"authorization: Bearer {secret}",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextmanager
def replying(front: Front, body: bytes = b"{}") -> Iterator[None]:
    """Replies to each request, as a worker would, with this JSON."""

    def reply_to_all() -> None:
        while True:
            front.reply(200, "application/json", body)

    greenlet = gevent.spawn(reply_to_all)
    try:
        yield
    finally:
        greenlet.kill()


def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def read_until(connection: socket.socket, end: bytes) -> None:
    received = b""
    while end not in received:
        data = connection.recv(4096)
        assert data, received
        received += data
