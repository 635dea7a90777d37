"""Runs the calls of a store of bytes in threads, so that no disk and no peer holds up the event loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast

from gevent.threadpool import ThreadPool

from shared.files.part_store import PartStore, StoredPart
from shared.files.wrapped_store import WrappedStore

T = TypeVar("T")
#: Calls that run at the same time; others wait. Threads of their own: gevent's pool looks up names.
MAX_THREADS = 8
#: Parts listed by one call.
LISTED_AT_ONCE = 1000


class ThreadedStore(WrappedStore):
    """A PartStore for greenlets."""

    def __init__(self, store: PartStore) -> None:
        super().__init__(store)
        self._threads: ThreadPool | None = None

    def list(self, prefix: str = "") -> Iterator[StoredPart]:
        listing = self._store.list(prefix)
        while parts := self._run(lambda: list(islice(listing, LISTED_AT_ONCE))):
            yield from parts

    def _run(self, call: Callable[..., T], *args: Any) -> T:
        """Threads start with the first call: before, the process may fork."""
        if self._threads is None:
            self._threads = ThreadPool(MAX_THREADS)
        outcome = self._threads.apply(capture, (call, args))
        if outcome.error is not None:
            raise outcome.error
        return cast("T", outcome.result)


@dataclass(frozen=True)
class Outcome:
    """What a call returned or raised."""

    result: Any = None
    error: Exception | None = None


def capture(call: Callable[..., Any], args: tuple[Any, ...]) -> Outcome:
    """gevent would print the traceback of whatever a thread raises, though a part may well be missing."""
    try:
        return Outcome(call(*args))
    except Exception as error:
        return Outcome(error=error)
