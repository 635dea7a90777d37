"""gunicorn's gevent worker, changed in six ways.

1. It retires after a reload, when other fronts serve: its running requests may take as long as they need. At a stop
   they get the drain time, and all callers a reply.
2. Neither waits for idle keep-alive connections, which gunicorn counts as open.
3. A request that gunicorn can't parse never reaches the app; its error is written here, in the shape of all others.
4. A response's head and body are sent as one packet.
5. A caller that is still sending can read an early reply (lingering_close.py).
6. A caller that asks before it sends a body is asked for it when the app reads it (expect_continue.py).
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.ggevent import GeventWorker

from shared import names
from shared.errors import ApiError
from shared.ready_flag import ReadyFlag
from web.server.connection_limit import ConnectionLimit
from web.server.corked_socket import CorkedSocket
from web.server.disconnect import check_callers, enable_keepalive
from web.server.expect_continue import ask_when_read, expects_continue
from web.server.lingering_close import discard_body, discard_rest, is_read, linger
from web.server.request_input import PIECE_BYTES

# gunicorn would receive up to 1 MB at once, and copy what is left of it for each piece that the app reads: that takes
# 130 ms for a body of 20 MB, and this 8.
SocketUnreader.max_body_chunk = PIECE_BYTES
#: Makes a front end once its running requests have ended; SIGTERM gives them the drain time.
RETIRE_SIGNAL = signal.SIGUSR2
#: Seconds after which a connection without a request is closed when the front retires, and when it stops. A request may
#: be on its way meanwhile; it is served, and closes the connection.
RETIRING_IDLE_SECONDS, STOPPING_IDLE_SECONDS = 5.0, 0.5
#: Seconds that replies get to be sent after the drain time is over.
LAST_REPLIES_SECONDS = 3.0
#: Seconds between two heartbeats to the master, and between two looks whether the front may end.
HEARTBEAT_SECONDS, DRAIN_POLL_SECONDS = 1.0, 0.1
#: Seconds that sending the error for an unreadable request may take, and reading what follows it.
SEND_SECONDS = 3.0
TOO_MANY_CONNECTIONS = ApiError(
    429,
    "too_many_connections",
    "your address has too many connections open: close some, or use each for more requests",
    "rate_limit_error",
)
#: gunicorn's parse errors and the response to each; 400 for all others.
UNREADABLE_ERRORS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "the URL is too long"),
    errors.LimitRequestHeaders: (431, "the headers are too large"),
    errors.ExpectationFailed: (417, "the Expect header can't be satisfied"),
    errors.UnsupportedTransferCoding: (501, "the transfer coding is not supported"),
}


class Front(Protocol):
    """What the app of a front has to offer to its worker."""

    #: Seconds that running requests may take when the front retires, and when it stops.
    retire_seconds: float
    drain_seconds: float

    @property
    def is_ready(self) -> bool:
        """Whether it can serve requests."""

    @property
    def connections(self) -> ConnectionLimit | None:
        """None for no limit."""

    def end_live_pages(self) -> None:
        """Ends the streams that would never end by themselves."""

    def hand_over_batches(self) -> None:
        """Begins no further line of a batch: other fronts do. Those that run may end."""

    @property
    def has_detached_work(self) -> bool:
        """Whether a line of a batch runs."""

    def begin_shutdown(self) -> None:
        """Replies to the requests that wait in the queue, and to new ones, that the farm is shutting down."""

    def end_requests(self) -> None:
        """Ends all requests with an error."""


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
        #: Set for the master once the front can serve.
        self.ready = ReadyFlag()
        #: Set by the hook `post_worker_init`.
        self.front: Front | None = None
        self._woken = Event()
        self._idle_seconds = float(self.cfg.keepalive)
        #: Until when running requests may take, by the monotonic clock.
        self._drain_until = float("inf")
        self._is_stopping = False

    def timeout_ctx(self) -> IdleConnection:
        """gunicorn: limits how long a connection may wait for a request."""
        return IdleConnection(self, self._idle_seconds)

    def run(self) -> None:
        """gunicorn: serves until the front retires or stops, then until its requests have ended."""
        while self.alive and not (self.front and self.front.is_ready):
            self.notify()
            self._woken.wait(DRAIN_POLL_SECONDS)
        enable_keepalive(self.sockets)
        servers = [self._start_server(listener) for listener in self.sockets]
        self.ready.set()
        while self.alive:
            self.notify()
            self._woken.wait(HEARTBEAT_SECONDS)
        self._drain(servers)

    def _start_server(self, listener: Any) -> StreamServer:
        listener.setblocking(1)
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=Pool(self.worker_connections))
        server.max_accept = 1 if self.cfg.workers > 1 else server.max_accept
        server.start()
        return server

    def _drain(self, servers: list[StreamServer]) -> None:
        """1. End live pages. 2. Accept no more connections. 3. Let requests end. 4. End those that are left."""
        heartbeat = gevent.spawn(self._send_heartbeats)
        if self.front:
            self.front.end_live_pages()
            self.front.hand_over_batches()
        self._wait_for_requests(servers)
        if self.front and self._is_busy(servers):
            self.front.end_requests()
        give_up_at = time.monotonic() + LAST_REPLIES_SECONDS
        while self._is_busy(servers) and time.monotonic() < give_up_at:
            gevent.sleep(DRAIN_POLL_SECONDS)
        for server in servers:
            server.stop(timeout=1)
        heartbeat.kill()

    def _wait_for_requests(self, servers: list[StreamServer]) -> None:
        """Waits until the last request has ended or the time for it is over; a signal may shorten it meanwhile."""
        has_begun = False
        while time.monotonic() < self._drain_until:
            if self._is_stopping and not has_begun and self.front:
                has_begun = True
                self.front.begin_shutdown()
                # Connections that the kernel has accepted already get a reply too.
                gevent.sleep(DRAIN_POLL_SECONDS)
            for server in servers:
                server.close()
            if not self._is_busy(servers):
                return
            gevent.sleep(DRAIN_POLL_SECONDS)

    def _is_busy(self, servers: list[StreamServer]) -> bool:
        """Whether a connection is open, or something runs without one."""
        has_detached_work = self.front is not None and self.front.has_detached_work
        return has_detached_work or any(len(server.pool) for server in servers)

    def _send_heartbeats(self) -> None:
        while True:
            self.notify()
            gevent.sleep(HEARTBEAT_SECONDS)

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(RETIRE_SIGNAL, self.handle_retire)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """gunicorn: SIGTERM. Running requests get the drain time; none of it is left when the signal comes again."""
        seconds = self.front.drain_seconds if self.front and not self._is_stopping else 0.0
        self._is_stopping = True
        self._end_within(seconds, STOPPING_IDLE_SECONDS)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """gunicorn: SIGQUIT or SIGINT. Ends all requests now, with a reply."""
        self._is_stopping = True
        self._end_within(0.0, STOPPING_IDLE_SECONDS)

    def handle_retire(self, sig: int, frame: Any) -> None:
        """Other fronts take over: running requests may take as long as they need."""
        self._end_within(self.front.retire_seconds if self.front else 0.0, RETIRING_IDLE_SECONDS)

    def _end_within(self, seconds: float, idle_seconds: float) -> None:
        """Called by signal handlers, so it must not block."""
        self._drain_until = min(self._drain_until, time.monotonic() + seconds)
        self._idle_seconds = idle_seconds
        self.alive = False
        gevent.spawn(self._woken.set)
        gevent.spawn_later(idle_seconds, self._expire_idle)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """gunicorn: serves a connection, unless its address has too many."""
        with self._hold(addr[0]) if isinstance(addr, tuple) else contextlib.nullcontext(True) as is_admitted:
            if is_admitted:
                super().handle(listener, client, addr)
            else:
                refuse(client)

    def _hold(self, address: str, forwarded: Iterable[str] = ()) -> AbstractContextManager[bool]:
        """Counts a connection of the address; see ConnectionLimit."""
        connections = self.front.connections if self.front else None
        return connections.hold(address, forwarded) if connections else contextlib.nullcontext(True)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """gunicorn: serves one request. Raises StopIteration when the connection must close.

        The farm's own reverse proxy opens a connection for each request of its callers, who are known only now.
        """
        if isinstance(addr, tuple):
            return self._serve_request(listener_name, req, sock, addr)
        with self._hold("", [value for name, value in req.headers if name == "X-FORWARDED-FOR"]) as is_admitted:
            if is_admitted:
                return self._serve_request(listener_name, req, sock, addr)
        discard_rest(req.body)
        send_last_error(sock, TOO_MANY_CONNECTIONS)
        raise StopIteration

    def _serve_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        corked_socket = CorkedSocket(sock, req.version[1])
        if not isinstance(addr, tuple):
            # A proxy that has an early reply cuts off a caller who is still sending, so it gets the reply afterwards.
            corked_socket.before_head = partial(discard_rest, req.body)
        if wants_close(req.headers):
            req.force_close()
        if expects_continue(req):
            ask_when_read(req, sock)
        is_closing = False
        try:
            super().handle_request(listener_name, req, corked_socket, addr)
        except StopIteration:
            is_closing = True
        finally:
            corked_socket.flush()
        if not is_read(req.body):
            if is_closing or req.body.failed:
                linger(sock)
            is_closing = is_closing or not discard_body(req.body)
        if is_closing:
            raise StopIteration

    def notify(self) -> None:
        """gunicorn: sends the heartbeat; retires when its master is gone, for which another one is started."""
        check_callers()
        if self.ppid == os.getppid():
            super().notify()
        elif self.alive:
            self.handle_retire(RETIRE_SIGNAL, None)

    def _expire_idle(self) -> None:
        for connection in list(self.idle):
            connection.expire()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn: handles an error outside the app."""
        if not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, message = UNREADABLE_ERRORS.get(type(exc), (400, "the request can't be parsed"))
        send_last_error(client, ApiError(status, "unreadable_request", message))


def wants_close(headers: list[tuple[str, str]]) -> bool:
    """Whether the caller asks for the connection to be closed; gunicorn sees that only without other options."""
    return any(
        name == "CONNECTION" and "close" in (option.strip(" \t").lower() for option in value.split(","))
        for name, value in headers
    )


def refuse(client: socket.socket) -> None:
    """Refuses a connection, without reading what it sends."""
    with contextlib.suppress(OSError), gevent.Timeout(SEND_SECONDS, exception=False):
        client.sendall(encode_error(TOO_MANY_CONNECTIONS))
        client.shutdown(socket.SHUT_WR)
    client.close()


def send_last_error(client: Any, error: ApiError) -> None:
    """Ends the connection with an error that the caller can read although it is still sending."""
    with contextlib.suppress(OSError), gevent.Timeout(SEND_SECONDS, exception=False):
        client.sendall(encode_error(error))
        linger(client)


def encode_error(error: ApiError) -> bytes:
    """Encodes a complete response that closes the connection: where the next request starts is unknown."""
    headers = {
        "content-type": "application/json",
        "content-length": str(len(error.body())),
        "connection": "close",
        "access-control-allow-origin": "*",
        "x-request-id": names.new_request_id(),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode() + error.body()
