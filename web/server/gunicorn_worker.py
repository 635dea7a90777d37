"""gunicorn's gevent worker, with three things mended: idle connections don't hold up its end, its errors are JSON,
and an answer's head and body are one packet.

gunicorn waits at a graceful stop until no connection is open, and counts those that only might bring a next request. A
request that it can't read never reaches the app, so its error is written here, in the shape of all others.
"""

import contextlib
import os
import signal
import socket
import uuid
from http import HTTPStatus
from types import TracebackType
from typing import Any

import gevent
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from shared.errors import ApiError
from web.server.corked_socket import CorkedSocket

#: Seconds that a client gets to read an answer while it still sends; a close at once would be a reset.
LINGER_SECONDS = 1.0
#: What gunicorn raises of a request that it can't read, and the answer; 400 for every other kind.
UNREADABLE_ERRORS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "the URL is too long"),
    errors.LimitRequestHeaders: (431, "the headers are too large"),
    errors.ExpectationFailed: (417, "that expectation can't be met"),
    errors.UnsupportedTransferCoding: (501, "that transfer coding is not supported"),
}


class IdleConnection:
    """A connection that waits for its next request, for as long as gunicorn keeps it alive; silent when time is up."""

    def __init__(self, worker: "FarmGunicornWorker", seconds: float) -> None:
        self._worker = worker
        self._timeout = gevent.Timeout(seconds, exception=False)
        self._greenlet: Any = None
        self._expiry: Any = None

    def __enter__(self) -> None:
        self._timeout.start()
        self._greenlet = gevent.getcurrent()
        self._worker.idle.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._worker.idle.discard(self)
        self._timeout.close()
        if self._expiry is not None:
            self._expiry.stop()
        return value is self._timeout

    def expire(self) -> None:
        """As if its time were up; taken back, should a request arrive first."""
        self._expiry = gevent.get_hub().loop.run_callback(self._greenlet.throw, self._timeout)


class FarmGunicornWorker(GeventWorker):  # type: ignore[misc]
    """The worker class of the front."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[IdleConnection] = set()

    def timeout_ctx(self) -> IdleConnection:
        """gunicorn: the time that a connection may wait for a request."""
        return IdleConnection(self, self.cfg.keepalive if self.alive else 0.1)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """gunicorn: one request from its head to the last byte of its answer."""
        corked_socket = CorkedSocket(sock)
        try:
            return super().handle_request(listener_name, req, corked_socket, addr)
        finally:
            corked_socket.flush()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """gunicorn: SIGTERM, a graceful stop."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._expire_idle)

    def notify(self) -> None:
        """gunicorn: a sign of life, once a second; without its master it stops gracefully, not at once."""
        if self.ppid == os.getppid():
            super().notify()
        elif self.alive:
            self.handle_exit(signal.SIGTERM, None)

    def _expire_idle(self) -> None:
        for connection in list(self.idle):
            connection.expire()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn: something went wrong outside the app."""
        if not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, message = UNREADABLE_ERRORS.get(type(exc), (400, "the request can't be read"))
        with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, exception=False):
            client.sendall(encode_error(ApiError(status, "unreadable_request", message)))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass


def encode_error(error: ApiError) -> bytes:
    """A whole answer; the connection ends with it, because where the next request begins is not known."""
    headers = {
        "content-type": "application/json",
        "content-length": str(len(error.body())),
        "connection": "close",
        "access-control-allow-origin": "*",
        "x-request-id": f"req_{uuid.uuid4().hex}",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode() + error.body()
