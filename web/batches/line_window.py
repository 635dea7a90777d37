"""The lines of a batch that this front has in flight: as many as may be."""

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.greenlet import Greenlet

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from shared.batches.running_line import RunningLine, begin_run
from shared.files.file_record import FileRecord
from web.batches.batch_lease import BatchLease
from web.batches.input_cursor import InputCursor
from web.batches.line_run import LineRun
from web.batches.lines.line_reader import InputLine
from web.batches.services import BatchServices

log = logging.getLogger("farm.batches")


class LineWindow:
    """Lines begin in the order of the input, those first that others have begun and not ended."""

    def __init__(
        self,
        services: BatchServices,
        lease: BatchLease,
        cursor: InputCursor,
        find_key: Callable[[], ApiKey],
        on_end: Callable[[], None],
    ) -> None:
        """`find_key` returns the API key as it is now; `on_end` is called when a line has ended."""
        self._services = services
        self._lease = lease
        self._cursor = cursor
        self._find_key = find_key
        self._on_end = on_end
        self._lines: dict[int, tuple[LineRun, Greenlet[..., Any]]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, number: object) -> bool:
        return number in self._lines

    def list_runs(self) -> list[LineRun]:
        return [line for line, _ in self._lines.values()]

    def join(self) -> None:
        """Waits until the lines have ended."""
        gevent.joinall([greenlet for _, greenlet in self._lines.values()])

    def kill(self) -> None:
        """Cancels the lines."""
        gevent.killall([greenlet for _, greenlet in list(self._lines.values())])

    def fill(self, batch: Batch, record: FileRecord, orphans: dict[int, RunningLine], size: int) -> None:
        """Begins lines until so many are in flight; takes orphans out as they begin.

        Raises RedisError, FileStoreDown, PartNotFound.
        """
        while orphans and self._has_room(size):
            number = next(iter(orphans))
            self._take_over(batch, record, number, orphans.pop(number))
        self._cursor.open(batch, record)
        while not self._cursor.is_exhausted and self._has_room(size):
            line = self._cursor.read_next()
            if line and not self._begin(batch, record, line):
                self._cursor.reset()
                return

    def _has_room(self, size: int) -> bool:
        return len(self._lines) < size and not self._lease.ended.is_set()

    def _begin(self, batch: Batch, record: FileRecord, line: InputLine) -> bool:
        """False if Redis knows another line as the last one."""
        running = begin_run(self._lease.holder, clock.now(), line.offset, line.length)
        after = self._cursor.last_line
        if not self._services.lines.begin(batch.id, self._lease.holder, line.number, running, after=after):
            return False
        self._cursor.last_line = line.number
        self._spawn(batch, record, line.number, running, line.data)
        return True

    def _take_over(self, batch: Batch, record: FileRecord, number: int, orphan: RunningLine) -> None:
        running = begin_run(self._lease.holder, clock.now(), orphan.offset, orphan.length)
        if self._services.lines.begin(batch.id, self._lease.holder, number, running, instead_of=orphan):
            log.info(
                "line %d of a batch is run again", number, extra={"action": "batch_line_again", "reason": batch.id}
            )
            self._spawn(batch, record, number, running, None)

    def _spawn(self, batch: Batch, record: FileRecord, number: int, running: RunningLine, data: bytes | None) -> None:
        if former := self._lines.pop(number, None):
            former[1].kill(block=False)
        line = LineRun(self._services, batch, record, number, running, data, self._find_key, self._lease.ended)
        greenlet = gevent.spawn(line.run)
        self._lines[number] = (line, greenlet)
        greenlet.link(lambda ended: self._forget(number, ended))

    def _forget(self, number: int, greenlet: Any) -> None:
        if number in self._lines and self._lines[number][1] is greenlet:
            del self._lines[number]
        self._on_end()
