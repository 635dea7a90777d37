"""Where the next line to begin is in the input of a batch."""

from collections.abc import Iterator

from shared.batches.batch import Batch
from shared.files.file_record import FileRecord
from web.batches.lines.line_reader import InputLine, iter_lines
from web.batches.services import BatchServices
from web.request.body_memory import UNRESERVED_BYTES


class InputCursor:
    """Reads on from the last line that Redis knows to have begun."""

    def __init__(self, services: BatchServices) -> None:
        self._services = services
        self._lines: Iterator[InputLine] | None = None
        #: The last line that has begun, as far as this front knows.
        self.last_line = 0
        #: Whether there is no further line.
        self.is_exhausted = False

    def reset(self) -> None:
        """Starts over, as Redis knows another line as the last one."""
        self._lines, self.is_exhausted = None, False

    def open(self, batch: Batch, record: FileRecord) -> None:
        """Without effect unless it is new, or was reset. Raises RedisError."""
        if self._lines is None:
            current = self._services.store.find(batch.id) or batch
            self.last_line, self.is_exhausted = current.last_line, False
            pieces = self._services.files.open(record, current.next_offset)
            # A long line is read again once there is memory for it.
            self._lines = iter_lines(pieces, UNRESERVED_BYTES, current.last_line + 1, current.next_offset)

    def read_next(self) -> InputLine | None:
        """None at the end. Raises FileStoreDown, PartNotFound."""
        assert self._lines is not None
        line = next(self._lines, None)
        self.is_exhausted = line is None
        return line
