"""Cancels a greenlet's work: the caller has gone, a deadline has passed, or the lease is lost. No I/O.

An exception thrown into a greenlet may only arrive while it waits for the upstream, never while it talks to Redis.
So work can be cancelled only inside the `with` block, and a throw that is still pending at its end is withdrawn.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import gevent

#: Seconds between two checks of the deadlines.
CHECK_SECONDS = 0.25


class Cancelled(BaseException):
    """Raised inside a cancelled scope. A BaseException, so that no library's `except Exception` swallows it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        #: `client_gone`, `lease_lost`, or the name of the deadline that passed.
        self.reason = reason


class CancelScope:
    """A block of work that can be cancelled, with one deadline at a time and a total one."""

    def __init__(self, monitor: "DeadlineMonitor", holds_lease: Callable[[], bool] = lambda: True) -> None:
        self._monitor = monitor
        self._holds_lease = holds_lease
        self._greenlet: gevent.Greenlet | None = None
        self._pending_throw: Any = None
        self._deadline = float("inf")
        self._deadline_reason = ""
        #: The relay request's own deadline, by the monotonic clock; it applies beside the current one.
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
        """Replaces the current deadline: the scope is cancelled with `reason` after that many seconds."""
        self._deadline = time.monotonic() + seconds
        self._deadline_reason = reason

    def cancel(self, reason: str) -> bool:
        """False when the scope has been left or was cancelled before."""
        if self._greenlet is None or self._pending_throw is not None:
            return False
        self._pending_throw = gevent.get_hub().loop.run_callback(self._greenlet.throw, Cancelled(reason))
        return True

    @property
    def was_cancelled(self) -> bool:
        """Whether the scope has been cancelled, which happens once: no deadline applies any more."""
        return self._pending_throw is not None

    def check_lease(self) -> None:
        """Raises Cancelled when the lease is lost. To be called after a wait, in which the process may have frozen."""
        if not self._holds_lease():
            raise Cancelled("lease_lost")

    def check_deadlines(self, now: float) -> None:
        """Cancels the scope if its lease is lost or a deadline has passed."""
        if not self._holds_lease():
            self.cancel("lease_lost")
        elif now > self.total_deadline:
            self.cancel("total_timeout")
        elif now > self._deadline:
            self.cancel(self._deadline_reason)


class DeadlineMonitor:
    """Checks the deadlines of all scopes of a process."""

    def __init__(self) -> None:
        self.scopes: set[CancelScope] = set()

    def run(self) -> None:
        while True:
            gevent.sleep(CHECK_SECONDS)
            now = time.monotonic()
            for scope in list(self.scopes):
                scope.check_deadlines(now)
