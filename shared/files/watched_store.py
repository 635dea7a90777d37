"""A store of bytes whose failures are noted for operators."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from redis import Redis

from shared.files.part_store import FileStoreDown, PartStore, StoredPart
from shared.files.store_health import report_failure

T = TypeVar("T")


class WatchedStore:
    """A PartStore."""

    def __init__(self, store: PartStore, redis: Redis) -> None:
        self._store = store
        self._redis = redis

    def put(self, name: str, data: bytes) -> None:
        self._run(self._store.put, name, data)

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        return self._run(self._store.get, name, start, end)

    def delete(self, name: str) -> None:
        self._run(self._store.delete, name)

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
