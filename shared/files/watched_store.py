"""A store of bytes whose failures are noted for operators."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from redis import Redis

from shared.files.part_store import FileStoreDown, PartStore, StoredPart
from shared.files.store_health import report_failure
from shared.files.wrapped_store import WrappedStore

T = TypeVar("T")


class WatchedStore(WrappedStore):
    """Notes what fails, and raises it."""

    def __init__(self, store: PartStore, redis: Redis) -> None:
        super().__init__(store)
        self._redis = redis

    def list(self, prefix: str = "") -> Iterator[StoredPart]:
        parts = self._run(self._store.list, prefix)
        while part := self._run(next, parts, None):
            yield part

    def _run(self, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except FileStoreDown as error:
            report_failure(self._redis, error)
            raise
