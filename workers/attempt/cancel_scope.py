"""Stretches of a greenlet's work that others may end: a client that left, a deadline, a lost lease; no I/O.

An exception thrown into a greenlet may only arrive while it waits for the upstream, never while it talks to Redis.
So a section is interruptible from `with` to its end, and what was thrown but has not arrived by then is taken back.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import gevent

#: Seconds between two looks at the deadlines.
CHECK_SECONDS = 0.25


class Cancelled(BaseException):
    """Raised inside a section that was ended from outside; not an Exception, so no library takes it for its own."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        #: `client_gone`, `lease_lost`, or the name of the deadline that passed.
        self.reason = reason


class CancelScope:
    """One interruptible stretch, with at most one deadline that runs."""

    def __init__(self, monitor: "DeadlineMonitor", holds_lease: Callable[[], bool] = lambda: True) -> None:
        self._monitor = monitor
        self._holds_lease = holds_lease
        self._greenlet: gevent.Greenlet | None = None
        self._pending_throw: Any = None
        self._deadline = float("inf")
        self._deadline_reason = ""
        #: A deadline above the one that runs (the request's total).
        self.total_deadline = float("inf")

    def __enter__(self) -> "CancelScope":
        self._greenlet = gevent.getcurrent()
        self._monitor.scopes.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._greenlet = None
        self._monitor.scopes.discard(self)
        if self._pending_throw is not None:
            self._pending_throw.stop()

    def set_deadline(self, reason: str, seconds: float) -> None:
        """From now on the section ends with `reason` after so many seconds, unless this is called again."""
        self._deadline = time.monotonic() + seconds
        self._deadline_reason = reason

    def cancel(self, reason: str) -> bool:
        """Ends the section; False when it is over or was ended before."""
        if self._greenlet is None or self._pending_throw is not None:
            return False
        self._pending_throw = gevent.get_hub().loop.run_callback(self._greenlet.throw, Cancelled(reason))
        return True

    def check_lease(self) -> None:
        """Raises Interrupted when the lease is lost: for one who has waited, perhaps frozen, and is about to go on."""
        if not self._holds_lease():
            raise Cancelled("lease_lost")

    def check_deadlines(self, now: float) -> None:
        """Ends the section if a deadline has passed, or the lease it works on."""
        if not self._holds_lease():
            self.cancel("lease_lost")
        elif now > self.total_deadline:
            self.cancel("total_timeout")
        elif now > self._deadline:
            self.cancel(self._deadline_reason)


class DeadlineMonitor:
    """Looks at the deadlines of all sections of a process."""

    def __init__(self) -> None:
        self.scopes: set[CancelScope] = set()

    def run(self) -> None:
        """Runs for ever."""
        while True:
            gevent.sleep(CHECK_SECONDS)
            now = time.monotonic()
            for scope in list(self.scopes):
                scope.check_deadlines(now)
