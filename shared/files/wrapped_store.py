"""A store of bytes that calls another one in its own way."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from shared.files.part_store import PartStore, StoredPart

T = TypeVar("T")


class WrappedStore(ABC):
    """A PartStore."""

    def __init__(self, store: PartStore) -> None:
        self._store = store

    def put(self, name: str, data: bytes) -> None:
        self._run(self._store.put, name, data)

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        return self._run(self._store.get, name, start, end)

    def delete(self, name: str) -> None:
        self._run(self._store.delete, name)

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredPart]: ...

    @abstractmethod
    def _run(self, call: Callable[..., T], *args: Any) -> T:
        """Calls a method of the other store."""
