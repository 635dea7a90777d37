"""The store of bytes beneath files: small immutable parts, each put whole and durable before anything names it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shared.errors import FarmError

#: Maximum bytes of a part.
PART_BYTES = 4 * 1024 * 1024


class FileStoreDown(FarmError):
    """Raised when the store of bytes can't be reached, or fails."""


class FileStoreFull(FileStoreDown):
    """Raised when the store of bytes has no room left."""


class PartNotFound(FarmError):
    """Raised when the store does not have the part: it was deleted, or is in another host's directory."""


@dataclass(frozen=True)
class StoredPart:
    """A part as the store lists it."""

    name: str
    #: When it was put, in seconds since the epoch by the store's clock.
    modified_at: float


class PartStore(Protocol):
    """Names are `<file id>/<number>`. All methods raise FileStoreDown."""

    def put(self, name: str, data: bytes) -> None:
        """Stores a part, atomically and durably; replaces one of the same name. Raises FileStoreFull."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes from `start` up to `end`, None for all the rest. Raises PartNotFound."""

    def delete(self, name: str) -> None:
        """Deletes a part; nothing happens if there is none."""

    def list(self, prefix: str = "") -> Iterator[StoredPart]:
        """All parts whose names begin with `prefix`, unfinished ones too."""


def part_name(file_id: str, number: int) -> str:
    return f"{file_id}/{number:06d}"
