"""gunicorn's gevent worker with three fixes.

1. A graceful stop does not wait for idle keep-alive connections, which gunicorn counts as open.
2. A request that gunicorn can't parse never reaches the app; its error is written here, in the shape of all others.
3. A response's head and body are sent as one packet.
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
from web.server.disconnect import check_all_for_vanished, enable_keepalive

#: Seconds that a caller gets to read the response while it is still sending; closing at once would reset it.
LINGER_SECONDS = 1.0
#: gunicorn's parse errors and the response to each; 400 for all others.
UNREADABLE_ERRORS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "the URL is too long"),
    errors.LimitRequestHeaders: (431, "the headers are too large"),
    errors.ExpectationFailed: (417, "the Expect header can't be satisfied"),
    errors.UnsupportedTransferCoding: (501, "the transfer coding is not supported"),
}


class IdleConnection:
    """A keep-alive connection between two requests; ends silently at its timeout."""

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
        """Ends the wait as its timeout would; `__exit__` revokes this if a request arrives first."""
        self._expiry = gevent.get_hub().loop.run_callback(self._greenlet.throw, self._timeout)


class FarmGunicornWorker(GeventWorker):  # type: ignore[misc]
    """The worker class of the front."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[IdleConnection] = set()

    def run(self) -> None:
        """gunicorn: serves until the end."""
        enable_keepalive(self.sockets)
        super().run()

    def timeout_ctx(self) -> IdleConnection:
        """gunicorn: limits how long a connection may wait for a request."""
        return IdleConnection(self, self.cfg.keepalive if self.alive else 0.1)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        corked_socket = CorkedSocket(sock)
        try:
            return super().handle_request(listener_name, req, corked_socket, addr)
        finally:
            corked_socket.flush()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """gunicorn: stops gracefully at SIGTERM."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._expire_idle)

    def notify(self) -> None:
        """gunicorn: sends the heartbeat, once a second; stops gracefully, not at once, when its master is gone."""
        check_all_for_vanished()
        if self.ppid == os.getppid():
            super().notify()
        elif self.alive:
            self.handle_exit(signal.SIGTERM, None)

    def _expire_idle(self) -> None:
        for connection in list(self.idle):
            connection.expire()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn: handles an error outside the app."""
        if not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, message = UNREADABLE_ERRORS.get(type(exc), (400, "the request can't be parsed"))
        with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, exception=False):
            client.sendall(encode_error(ApiError(status, "unreadable_request", message)))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass


def encode_error(error: ApiError) -> bytes:
    """Encodes a complete response that closes the connection: where the next request starts is unknown."""
    headers = {
        "content-type": "application/json",
        "content-length": str(len(error.body())),
        "connection": "close",
        "access-control-allow-origin": "*",
        "x-request-id": f"req_{uuid.uuid4().hex}",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode() + error.body()
