"""Takes the connections of the worker processes, and answers their requests."""

import logging
import socket

import gevent
from gevent.lock import BoundedSemaphore

from workers.credentials.refresh_request import Refresher
from workers.refresher.rendezvous import Rendezvous
from workers.refresher.wire import GREETING, decode_request, encode_result

log = logging.getLogger("farm.tokens")


class RefresherServer:
    """One greenlet per connection, and one per request."""

    def __init__(self, rendezvous: Rendezvous, refresher: Refresher) -> None:
        self._rendezvous = rendezvous
        self._refresher = refresher
        self._ends: set[socket.socket] = set()

    @property
    def connection_count(self) -> int:
        """How many worker processes are connected."""
        return len(self._ends)

    def run(self) -> None:
        """Runs until its greenlet is killed."""
        while True:
            end = self._rendezvous.accept()
            self._ends.add(end)
            gevent.spawn(self._serve, end)

    def _serve(self, end: socket.socket) -> None:
        """Until the worker process closes the connection, by its death if not before."""
        sending = BoundedSemaphore()
        try:
            with end, end.makefile("rb") as lines:
                end.sendall(GREETING)
                for line in lines:
                    if line.endswith(b"\n"):
                        gevent.spawn(self._answer, end, sending, line)
        except OSError:
            pass  # The process is gone.
        finally:
            self._ends.discard(end)

    def _answer(self, end: socket.socket, sending: BoundedSemaphore, line: bytes) -> None:
        number, request = decode_request(line)
        failure: BaseException | None = None
        try:
            self._refresher.refresh(request)
        except Exception as error:
            failure = error
        try:
            with sending:
                end.sendall(encode_result(number, failure))
        except OSError:
            extra = {"action": "refresh_unclaimed", "credential_id": request.credential_id}
            log.info("a refresh has ended whose worker process is gone", extra=extra)
