"""A short-lived cache with single flight: concurrent loads of a key are merged into one."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gevent.event import AsyncResult

K = TypeVar("K")
V = TypeVar("V")
#: Seconds that a value stays cached.
TTL_SECONDS = 1.0
#: Number of entries beyond which the oldest are dropped; clearing the cache would let anybody clear it for all.
MAX_ENTRIES = 10_000


class SingleFlightCache(Generic[K, V]):
    """Caches values for a second and loads each key at most once at a time.

    Without it, ten thousand simultaneous callers would wait for a few Redis connections until they time out.
    """

    def __init__(self, load: Callable[[K], V]) -> None:
        self._load = load
        self._cached: dict[K, tuple[float, V]] = {}
        self._in_flight: dict[K, AsyncResult[V]] = {}

    def get(self, key: K) -> V:
        """Returns the value. An error of the load is raised to every caller that waits for it, and is not cached."""
        cached = self._cached.get(key)
        if cached and time.monotonic() - cached[0] < TTL_SECONDS:
            return cached[1]
        if in_flight := self._in_flight.get(key):
            value: V = in_flight.get()
            return value
        return self._load_once(key)

    def _load_once(self, key: K) -> V:
        result: AsyncResult[V] = AsyncResult()
        self._in_flight[key] = result
        try:
            value = self._load(key)
        except BaseException as error:
            result.set_exception(error if isinstance(error, Exception) else ConnectionError("the load was cancelled"))
            raise
        finally:
            del self._in_flight[key]
        self._cached.pop(key, None)
        self._cached[key] = (time.monotonic(), value)
        if len(self._cached) > MAX_ENTRIES:
            del self._cached[next(iter(self._cached))]
        result.set(value)
        return value
