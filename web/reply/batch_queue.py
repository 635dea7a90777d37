"""A queue whose single consumer takes all items at once. No I/O.

A reply of a hundred chunks means a hundred waits. gevent's queues start and stop a timer for each of them; here one
timer keeps running and, when it fires, checks how long the current wait may last.
"""

import time
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Waiter

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """Items in order of arrival, for one waiting greenlet."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiter: Any = None
        #: End of the current wait, monotonic clock.
        self._wait_until = 0.0
        self._timer: Any = None
        #: When the timer fires, monotonic clock.
        self._timer_due_at = 0.0

    def put(self, item: T) -> None:
        self._items.append(item)
        self.wake()

    def take(self, timeout: float) -> list[T]:
        """Returns all items, after waiting up to `timeout` seconds for the first; empty on timeout."""
        if not self._items and timeout > 0:
            self._wait(timeout)
        items, self._items = self._items, []
        return items

    def close(self) -> None:
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

    def wake(self) -> None:
        """Ends the current wait."""
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
            self.wake()
