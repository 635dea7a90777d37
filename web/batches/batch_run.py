"""Runs one batch in the front that holds its lease, from its validation to its files."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gevent
from gevent.event import Event
from gevent.greenlet import Greenlet
from redis.exceptions import RedisError

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXPIRED,
    FAILED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    Batch,
)
from shared.batches.running_line import NOBODY, RunningLine, begin_run
from shared.files.file_record import FileRecord
from shared.files.file_store import FileNotFound
from shared.files.part_store import FileStoreDown, PartNotFound
from web.batches.line_parser import InvalidLine
from web.batches.line_reader import InputLine, iter_lines
from web.batches.line_run import LineRun
from web.batches.result_files import FLUSH_BYTES, MAX_RESULT_BYTES, ResultFiles
from web.batches.services import BatchServices
from web.batches.unrun_lines import record_unrun
from web.batches.validation import MAX_BYTES, Validation
from web.request.body_memory import UNRESERVED_BYTES
from web.request.cooperative import take_breaks

log = logging.getLogger("farm.batches")
#: Seconds between two renewals of the lease, and between two looks at the record and at lines that nobody runs.
RENEWAL_SECONDS, CHECK_SECONDS, ORPHAN_CHECK_SECONDS = 2.0, 0.5, 2.0
#: Seconds before something is tried again that Redis or the store of files has refused: first, and at most.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 15.0
#: Lines in flight per account, at least, and at most.
LINES_PER_ACCOUNT, MIN_WINDOW, MAX_WINDOW = 2, 8, 2000
INPUT_GONE = InvalidLine(
    "input_file_gone", "The input file was deleted, or its content can't be found.", "input_file_id"
)


class BatchRun:
    """One batch in this front, for as long as it has the lease, and until the lines that it has begun have ended."""

    def __init__(self, services: BatchServices, batch_id: str, find_share: Callable[[], float]) -> None:
        """`find_share` returns the part of the accounts that the batch may keep busy: 1 for all."""
        self._services = services
        self._store = services.store
        self._id = batch_id
        self._find_share = find_share
        self._results = ResultFiles(services.store, services.files, services.front_id)
        #: Set when no line may begin: the lease is given up or lost.
        self._stopped = Event()
        self._woken = Event()
        self._lines: dict[int, tuple[LineRun, Greenlet[..., Any]]] = {}
        self._flush: Greenlet[..., Any] | None = None
        self._key: ApiKey | None = None
        self._accounts = 0
        self._reader: Iterator[InputLine] | None = None
        self._last_line = 0
        #: Whether the reader has come to the end of the input.
        self._is_exhausted = False

    def __len__(self) -> int:
        """Lines that this front runs."""
        return len(self._lines)

    def run(self) -> None:
        """Returns when the batch has ended, or another front may run it and no line runs here."""
        renewal = gevent.spawn(self._renew_lease)
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._stopped.is_set():
                try:
                    if not self._step():
                        break
                    pause = FIRST_PAUSE_SECONDS
                except (RedisError, FileStoreDown) as error:
                    log.warning("batch %s has to wait: %s", self._id, error, extra={"action": "batch_waits"})
                    self._stopped.wait(pause)
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
        finally:
            gevent.joinall([greenlet for _, greenlet in self._lines.values()])
            renewal.kill()
            self.give_up()

    def stop(self) -> None:
        """Begins no further line, and lets another front go on; the lines that run here may end."""
        self._stopped.set()
        self._woken.set()
        self.give_up()

    def give_up(self) -> None:
        try:
            self._store.give_up_lease(self._id, self._services.front_id)
        except RedisError as error:
            log.warning("a batch's lease has to expire: %s", error, extra={"action": "redis_lost"})

    def _renew_lease(self) -> None:
        while not self._stopped.is_set():
            gevent.sleep(RENEWAL_SECONDS)
            try:
                if not self._stopped.is_set() and not self._store.hold_lease(self._id, self._services.front_id):
                    log.warning("another front has taken batch %s over", self._id, extra={"action": "batch_lost"})
                    self._stopped.set()
                    self._woken.set()
            except RedisError as error:
                log.warning("can't renew a batch's lease: %s", error, extra={"action": "redis_lost"})

    def _step(self) -> bool:
        """Brings the batch on by a state; False once it has ended."""
        batch = self._store.find(self._id)
        if batch is None or not batch.is_unfinished:
            self._store.forget(self._id)
            return False
        try:
            if batch.status == VALIDATING:
                self._validate(batch)
            elif batch.status == IN_PROGRESS:
                self._run_lines(batch)
            else:
                self._finalize(batch)
        except (FileNotFound, PartNotFound):
            self._fail(batch, [describe_error(INPUT_GONE)])
        return True

    # Validation

    def _validate(self, batch: Batch) -> None:
        key, record = self._services.find_key(batch), self._services.find_input(batch)
        if key is None:
            self._store.cancel(batch.id, reason="key_revoked")
            return
        selector = self._services.requests.pool_selector
        validation = Validation(batch.endpoint, lambda model: selector.select(model, key), self._services.max_line)
        if record.size > MAX_BYTES:
            validation.add_error(InvalidLine("file_too_large", f"A batch may have {MAX_BYTES} bytes at most."))
        else:
            take_breaks(validation.run(self._services.files.open(record)))
        if validation.errors:
            self._fail(batch, validation.errors)
            return
        changes = {
            "status": IN_PROGRESS,
            "in_progress_at": int(clock.now()),
            "total": validation.total,
            "model": validation.model,
        }
        self._change(batch, (VALIDATING,), changes)

    def _fail(self, batch: Batch, errors: list[dict[str, Any]]) -> None:
        """Ends a batch whose input can't be used; what is done of it is kept."""
        if batch.status == VALIDATING:
            changes = {"status": FAILED, "failed_at": int(clock.now()), "errors": errors}
            event = f"the input of batch {batch.id} is invalid"
            self._change(batch, (VALIDATING,), changes, ends=True, event=event)
            return
        changes = {"status": FINALIZING, "finalizing_at": int(clock.now()), "outcome": FAILED, "errors": errors}
        self._change(batch, (IN_PROGRESS, CANCELLING, FINALIZING), changes, disowns=True)

    def _change(self, batch: Batch, sources: tuple[str, ...], changes: Mapping[str, Any], **options: Any) -> bool:
        return self._store.change(batch, sources, changes, holder=self._services.front_id, **options)

    # Lines

    def _run_lines(self, batch: Batch) -> None:
        """Keeps lines in flight until all have a result, or the batch is cancelled or expires."""
        record = self._services.find_input(batch)
        orphans: dict[int, RunningLine] = {}
        checked_at = orphans_checked_at = 0.0
        self._reader, self._is_exhausted = None, False
        while not self._stopped.is_set():
            now = time.monotonic()
            if now - checked_at >= CHECK_SECONDS or (self._is_exhausted and not self._lines and not orphans):
                checked_at, found = now, self._check(batch)
                if found is None:
                    return
                batch = found
            if now - orphans_checked_at >= ORPHAN_CHECK_SECONDS:
                orphans_checked_at, orphans = now, self._find_orphans()
            self._flush_if_due(batch)
            self._begin_lines(batch, record, orphans)
            self._woken.wait(CHECK_SECONDS)
            self._woken.clear()

    def _check(self, batch: Batch) -> Batch | None:
        """Reads the record again; None if the batch has come into another state."""
        current = self._store.find(batch.id)
        if current is None or current.status != IN_PROGRESS:
            return None
        self._key = self._services.find_key(current)
        if self._key is None:
            self._store.cancel(batch.id, reason="key_revoked")
            return None
        self._accounts = self._services.count_accounts(self._key)
        now = clock.now()
        if current.completed + current.failed >= current.total:
            outcome = COMPLETED
        elif now >= current.expires_at:
            outcome = EXPIRED
        else:
            if current.last_line != self._last_line:
                self._reader, self._is_exhausted = None, False
            return current
        changes = {"status": FINALIZING, "finalizing_at": int(now), "outcome": outcome}
        self._change(current, (IN_PROGRESS,), changes, disowns=True)
        return None

    def _find_orphans(self) -> dict[int, RunningLine]:
        """Lines that have begun and that nobody runs: their front has ended, or has forgotten them."""
        running = self._store.read_running(self._id)
        others = {line.front for line in running.values()} - {NOBODY, self._services.front_id}
        gone = self._store.find_gone(sorted(others)) | {NOBODY}
        overdue_at = clock.now() - self._services.max_run
        return {
            number: line
            for number, line in sorted(running.items())
            if (number not in self._lines if line.front == self._services.front_id else line.front in gone)
            or line.since < overdue_at
        }

    def _begin_lines(self, batch: Batch, record: FileRecord, orphans: dict[int, RunningLine]) -> None:
        key = self._key
        if key is None or not key.enabled or key.is_expired or batch.result_bytes > MAX_RESULT_BYTES:
            return
        window = self._find_window()
        while orphans and len(self._lines) < window and not self._stopped.is_set():
            number = next(iter(orphans))
            self._take_over(batch, record, number, orphans.pop(number))
        if self._reader is None:
            self._open_reader(batch, record)
        while len(self._lines) < window and not self._is_exhausted and not self._stopped.is_set():
            assert self._reader is not None
            line = next(self._reader, None)
            if line is None:
                self._is_exhausted = True
            elif not self._begin_next(batch, record, line):
                # Redis knows another line as the last one.
                self._reader = None
                return

    def _find_window(self) -> int:
        """Lines that may be in flight."""
        return max(MIN_WINDOW, min(MAX_WINDOW, round(LINES_PER_ACCOUNT * self._accounts * self._find_share())))

    def _open_reader(self, batch: Batch, record: FileRecord) -> None:
        """Reads on from the last line that Redis knows as begun."""
        current = self._store.find(batch.id) or batch
        self._last_line, self._is_exhausted = current.last_line, False
        pieces = self._services.files.open(record, current.next_offset)
        self._reader = iter_lines(pieces, self._services.max_line, current.last_line + 1, current.next_offset)

    def _begin_next(self, batch: Batch, record: FileRecord, line: InputLine) -> bool:
        running = begin_run(self._services.front_id, clock.now(), line.offset, line.length)
        front_id = self._services.front_id
        if not self._store.begin_line(batch.id, front_id, line.number, running, after=self._last_line):
            return False
        self._last_line = line.number
        # A long line is read again once there is memory for it.
        self._spawn(batch, record, line.number, running, line.data if line.length <= UNRESERVED_BYTES else None)
        return True

    def _take_over(self, batch: Batch, record: FileRecord, number: int, orphan: RunningLine) -> None:
        running = begin_run(self._services.front_id, clock.now(), orphan.offset, orphan.length)
        if self._store.begin_line(batch.id, self._services.front_id, number, running, instead_of=orphan):
            log.info(
                "line %d of a batch is run again", number, extra={"action": "batch_line_again", "reason": batch.id}
            )
            self._spawn(batch, record, number, running, None)

    def _spawn(self, batch: Batch, record: FileRecord, number: int, running: RunningLine, data: bytes | None) -> None:
        if former := self._lines.pop(number, None):
            former[1].kill(block=False)
        line = LineRun(self._services, batch, record, number, running, data, self._get_key, self._stopped)
        greenlet = gevent.spawn(line.run)
        self._lines[number] = (line, greenlet)
        greenlet.link(lambda ended: self._forget(number, ended))

    def _get_key(self) -> ApiKey:
        assert self._key is not None
        return self._key

    def _forget(self, number: int, greenlet: Any) -> None:
        if number in self._lines and self._lines[number][1] is greenlet:
            del self._lines[number]
        self._woken.set()

    # Results

    def _flush_if_due(self, batch: Batch) -> None:
        """In a greenlet of its own: lines go on meanwhile."""
        if batch.result_bytes >= FLUSH_BYTES and (self._flush is None or self._flush.dead):
            self._flush = gevent.spawn(self._try_flush, batch)

    def _try_flush(self, batch: Batch) -> None:
        try:
            self._results.flush(batch)
        except (RedisError, FileStoreDown) as error:
            log.warning("results of a batch can't be stored yet: %s", error, extra={"action": "batch_store_down"})
            self._stopped.wait(FIRST_PAUSE_SECONDS)

    def _finalize(self, batch: Batch) -> None:
        """1. Nothing runs any more. 2. Lines without a result get one. 3. The files are made. 4. The batch ends."""
        outcome = CANCELLED if batch.status == CANCELLING else batch.outcome
        if batch.status == CANCELLING and not self._change(batch, (CANCELLING,), {"status": CANCELLING}, disowns=True):
            return
        gevent.killall([greenlet for _, greenlet in list(self._lines.values())])
        if self._flush is not None:
            self._flush.join()
        if outcome in (EXPIRED, CANCELLED) and batch.total:
            record_unrun(self._services, self._results, batch, outcome)
        while count := self._results.flush(batch):
            if count < 0:
                return
        batch = self._store.get(batch.id)
        self._results.create(batch)
        changes = {"status": outcome, f"{outcome}_at": int(clock.now())}
        event = f"batch {batch.id}: {batch.completed} of {batch.total} requests completed, {batch.failed} failed"
        self._change(batch, (batch.status,), changes, ends=True, event=event)


def describe_error(error: InvalidLine) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "param": error.param, "line": None}
