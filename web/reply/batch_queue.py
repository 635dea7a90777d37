"""What comes in for one greenlet, which takes all of it at once; no I/O.

An answer of a hundred chunks is waited for a hundred times. gevent's queues start a timer for each of these waits and
stop it again; here one timer runs on, and looks when it goes off how long the wait of then may last.
"""

import time
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Waiter

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """Things that have come and were not taken yet, in order."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiter: Any = None
        #: Until when is waited, by the monotonic clock.
        self._wait_until = 0.0
        self._timer: Any = None
        #: When the timer goes off.
        self._timer_due_at = 0.0

    def put(self, item: T) -> None:
        """One more, for whoever waits."""
        self._items.append(item)
        self._wake()

    def take(self, timeout: float) -> list[T]:
        """All that are there, after at most so many seconds; empty when none came in time."""
        if not self._items and timeout > 0:
            self._wait(timeout)
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        """Nobody takes any more."""
        if self._timer:
            self._timer.close()
            self._timer = None

    def _wait(self, timeout: float) -> None:
        self._wait_until = time.monotonic() + timeout
        if not self._timer or self._timer_due_at > self._wait_until:
            self._start_timer(timeout)
        self._waiter = waiter = Waiter()
        try:
            waiter.get()
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter:
            gevent.get_hub().loop.run_callback(waiter.switch, None)

    def _start_timer(self, seconds: float) -> None:
        self.close()
        self._timer_due_at = time.monotonic() + seconds
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self.close()
        if not self._waiter:
            return
        remaining = self._wait_until - time.monotonic()
        if remaining > 0:
            self._start_timer(remaining)
        else:
            self._wake()
