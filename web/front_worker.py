"""gunicorn's gevent worker, with one thing mended: idle kept-alive connections don't hold up its end.

gunicorn waits at a graceful stop until no connection is open, and counts those that only might bring a next request.
"""

from types import TracebackType
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker


class Idle:
    """A connection that waits for its next request, for as long as gunicorn keeps it alive; silent when time is up."""

    def __init__(self, worker: "FrontWorker", seconds: float) -> None:
        self._worker = worker
        self._timeout = gevent.Timeout(seconds, exception=False)
        self._greenlet: Any = None
        self._thrown: Any = None

    def __enter__(self) -> None:
        self._timeout.start()
        self._greenlet = gevent.getcurrent()
        self._worker.idle.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._worker.idle.discard(self)
        self._timeout.close()
        if self._thrown is not None:
            self._thrown.stop()
        return value is self._timeout

    def end(self) -> None:
        """As if its time were up; taken back, should a request arrive first."""
        self._thrown = gevent.get_hub().loop.run_callback(self._greenlet.throw, self._timeout)


class FrontWorker(GeventWorker):  # type: ignore[misc]
    """The worker class of the front."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[Idle] = set()

    def timeout_ctx(self) -> Idle:
        """gunicorn: the time that a connection may wait for a request."""
        return Idle(self, self.cfg.keepalive if self.alive else 0.1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """gunicorn: SIGTERM, a graceful stop."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._end_idle)

    def _end_idle(self) -> None:
        for connection in list(self.idle):
            connection.end()
