"""What Redis said a moment ago, for all who ask the same; it knows nothing of what is asked."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gevent.event import AsyncResult

K = TypeVar("K")
V = TypeVar("V")
#: Seconds that an answer is believed.
SECONDS = 1.0
#: Answers remembered at most.
REMEMBERED = 10_000


class Believed(Generic[K, V]):
    """Answers that are believed for a second; however many requests want one, it is asked for once.

    Ten thousand callers that come together would otherwise wait for each other at a few connections until time is up.
    """

    def __init__(self, look: Callable[[K], V]) -> None:
        self._look = look
        self._seen: dict[K, tuple[float, V]] = {}
        self._asked: dict[K, AsyncResult[V]] = {}

    def get(self, key: K) -> V:
        """The answer. Raises what the look raises, to all who wait for it."""
        found = self._seen.get(key)
        if found and time.monotonic() - found[0] < SECONDS:
            return found[1]
        if waiting := self._asked.get(key):
            value: V = waiting.get()
            return value
        return self._ask(key)

    def _ask(self, key: K) -> V:
        answer: AsyncResult[V] = AsyncResult()
        self._asked[key] = answer
        try:
            value = self._look(key)
        except BaseException as error:
            answer.set_exception(error if isinstance(error, Exception) else ConnectionError("nobody asks any more"))
            raise
        finally:
            del self._asked[key]
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen[key] = (time.monotonic(), value)
        answer.set(value)
        return value
