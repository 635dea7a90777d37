"""What Redis said a moment ago, for all who ask the same; it knows nothing of what is asked."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gevent.event import AsyncResult

K = TypeVar("K")
V = TypeVar("V")
#: Seconds that an answer is believed.
TTL_SECONDS = 1.0
#: Answers remembered at most.
MAX_ENTRIES = 10_000


class SingleFlightCache(Generic[K, V]):
    """Answers that are believed for a second; however many requests want one, it is asked for once.

    Ten thousand callers that come together would otherwise wait for each other at a few connections until time is up.
    """

    def __init__(self, load: Callable[[K], V]) -> None:
        self._load = load
        self._cached: dict[K, tuple[float, V]] = {}
        self._in_flight: dict[K, AsyncResult[V]] = {}

    def get(self, key: K) -> V:
        """The answer. Raises what the look raises, to all who wait for it."""
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
            result.set_exception(error if isinstance(error, Exception) else ConnectionError("nobody asks any more"))
            raise
        finally:
            del self._in_flight[key]
        if len(self._cached) >= MAX_ENTRIES:
            self._cached.clear()
        self._cached[key] = (time.monotonic(), value)
        result.set(value)
        return value
