"""A worker process's connection to the token refresher of its host."""

import itertools
import logging
import socket
import time
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from shared import clock
from shared.errors import RefresherDown
from workers.credentials.refresh_request import RefreshRequest
from workers.refresher.rendezvous import Rendezvous
from workers.refresher.wire import decode_result, encode_request

log = logging.getLogger("farm.tokens")
#: Seconds within which the refresher must take a connection; its supervisor restarts it in about one.
TAKEN_TIMEOUT_SECONDS = 20.0
#: Seconds for which a worker waits for a refresh. It may go on meanwhile: the next request joins it.
REFRESH_TIMEOUT_SECONDS = 90.0


class ConnectionLost(Exception):
    """Raised when the refresher has ended before it has replied."""


class Connection:
    """Requests on one connection, whose results come in any order."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile("rb")
        #: Number of a request -> its result.
        self._pending: dict[int, AsyncResult] = {}
        self.is_lost = False

    def wait_until_taken(self) -> None:
        """Raises ConnectionLost."""
        with gevent.Timeout(TAKEN_TIMEOUT_SECONDS, ConnectionLost("nobody takes the connection")):
            if not self._read():
                raise ConnectionLost("closed")
        gevent.spawn(self._receive)

    def _read(self) -> bytes:
        """The next line, b'' when the other side is gone."""
        try:
            line = self._lines.readline()
        except OSError:
            return b""
        return line if line.endswith(b"\n") else b""

    def _receive(self) -> None:
        while line := self._read():
            number, failure = decode_result(line)
            if result := self._pending.pop(number, None):
                result.set(failure)
        self.close()

    def close(self) -> None:
        """Called by the one greenlet that reads."""
        self.is_lost = True
        self._lines.close()
        self._end.close()
        for result in self._pending.values():
            result.set_exception(ConnectionLost("closed"))
        self._pending.clear()

    def ask(self, number: int, request: RefreshRequest) -> Exception | None:
        """What the refresh has raised. Raises ConnectionLost, RefresherDown."""
        result = self._pending[number] = AsyncResult()
        try:
            self._end.sendall(encode_request(number, request))
        except OSError:
            self._pending.pop(number, None)
            raise ConnectionLost("closed") from None
        failure: Any = None
        with gevent.Timeout(REFRESH_TIMEOUT_SECONDS, RefresherDown("the token refresher does not reply", "no_reply")):
            failure = result.get()
        return failure if isinstance(failure, Exception) else None


class RefresherClient:
    """Asks the token refresher, and asks its successor when it has been killed."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous
        self._connection: Connection | None = None
        self._connecting = BoundedSemaphore()
        self._numbers = itertools.count(1)
        #: Since when no refresher has taken a connection, seconds since the epoch; 0 while one does.
        self.down_since = 0.0

    def refresh(self, request: RefreshRequest) -> None:
        """See workers/credentials/refresh_request.py: Refresher. Raises RefresherDown as well, a TokenError."""
        give_up_at = time.monotonic() + REFRESH_TIMEOUT_SECONDS
        while True:
            try:
                failure = self.connect().ask(next(self._numbers), request)
                break
            except ConnectionLost as lost:
                if time.monotonic() > give_up_at:
                    raise RefresherDown(f"the token refresher is down: {lost}", "no_refresher") from None
            gevent.sleep(0.05)
        if failure is not None:
            raise failure

    def connect(self) -> Connection:
        """The connection, a new one if the last is lost. Raises ConnectionLost, RefresherDown."""
        with self._connecting:
            if self._connection is None or self._connection.is_lost:
                self._connection = self._open()
            return self._connection

    def _open(self) -> Connection:
        connection = Connection(self._rendezvous.connect())
        try:
            connection.wait_until_taken()
        except ConnectionLost as lost:
            connection.close()
            if not self.down_since:
                self.down_since = clock.now()
                log.error("the token refresher is down: %s", lost, extra={"action": "refresher_down"})
            raise
        if self.down_since:
            log.warning("the token refresher is back", extra={"action": "refresher_back"})
        self.down_since = 0.0
        return connection
