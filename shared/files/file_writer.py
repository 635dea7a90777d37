"""Writes the parts of a new file, which exists once it is committed (file_store.py)."""

import logging
from types import TracebackType

from shared.files.file_record import new_file_id
from shared.files.part_store import PART_BYTES, FileStoreDown, PartStore, part_name

log = logging.getLogger("farm.files")


class FileWriter:
    """Holds one part in memory at most. The end of the `with` block deletes what was not committed."""

    def __init__(self, store: PartStore) -> None:
        self.id = new_file_id()
        self.sizes: list[int] = []
        self.is_committed = False
        self._store = store
        self._buffered: list[bytes] = []
        self._buffered_bytes = 0

    @property
    def size(self) -> int:
        return sum(self.sizes) + self._buffered_bytes

    def write(self, data: bytes) -> None:
        """Raises FileStoreDown, FileStoreFull."""
        position = 0
        while position < len(data):
            piece = data[position : position + PART_BYTES - self._buffered_bytes]
            self._buffered.append(piece)
            self._buffered_bytes += len(piece)
            position += len(piece)
            if self._buffered_bytes == PART_BYTES:
                self.flush()

    def flush(self) -> None:
        """Puts what is buffered. Raises FileStoreDown, FileStoreFull."""
        if self._buffered:
            data = b"".join(self._buffered)
            self._buffered.clear()
            self._store.put(part_name(self.id, len(self.sizes)), data)
            self.sizes.append(len(data))
            self._buffered_bytes = 0

    def abort(self) -> None:
        """Deletes what has been put; what the store fails to delete is swept after a day."""
        try:
            # A put that failed may have put its part all the same.
            for number in range(len(self.sizes) + 1):
                self._store.delete(part_name(self.id, number))
        except FileStoreDown as error:
            fields = {"action": "file_parts_left"}
            log.warning("parts of %s are left until they are swept: %s", self.id, error, extra=fields)

    def __enter__(self) -> "FileWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_committed:
            self.abort()
