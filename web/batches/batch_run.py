"""Runs one batch in the front that holds its lease, from its validation to its files."""

import logging
import time
from collections.abc import Callable, Mapping

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import CANCELLING, COMPLETED, EXPIRED, IN_PROGRESS, VALIDATING, Batch
from shared.batches.hindrances import FILE_STORE_AWAY, FILE_STORE_FULL
from shared.batches.running_line import RunningLine
from shared.files.file_store import FileNotFound
from shared.files.part_store import FileStoreDown, FileStoreFull, PartNotFound
from web.batches.background_flush import BackgroundFlush
from web.batches.batch_lease import BatchLease
from web.batches.finalization import end_batch
from web.batches.headroom import count_lines
from web.batches.input_cursor import InputCursor
from web.batches.line_window import LineWindow
from web.batches.lines.line_parser import InvalidLine
from web.batches.lost_input import describe_loss, record_abandoned
from web.batches.orphans import find_orphans
from web.batches.progress.hindrance import FarmState, find_hindrance, may_begin, read_farm_state
from web.batches.progress.progress_log import ProgressLog
from web.batches.result_files import ResultFiles
from web.batches.services import BatchServices
from web.batches.transitions import Transitions
from web.batches.validation import MAX_BYTES, Validation, take_turn
from web.request.cooperative import take_breaks

log = logging.getLogger("farm.batches")
#: Seconds between two looks at the record, and at lines that nobody runs.
CHECK_SECONDS, ORPHAN_CHECK_SECONDS = 0.5, 2.0
#: Seconds before something is tried again that Redis or the store of files has refused: first, and at most.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 15.0
#: Lines of a batch in flight: at least, while there are no interactive requests, and at most.
MIN_LINES, MAX_LINES = 8, 2000


class BatchRun:
    """One batch in this front, for as long as it has the lease, and until the lines that it has begun have ended."""

    def __init__(self, services: BatchServices, batch_id: str, count_batches: Callable[[str], int]) -> None:
        """`count_batches` returns how many batches share the accounts of a pool, this one included."""
        self._services = services
        self._store = services.store
        self._id = batch_id
        self._count_batches = count_batches
        self._woken = Event()
        self._lease = BatchLease(services.leases, batch_id, services.front_id)
        self._transitions = Transitions(services.store, services.front_id)
        self._results = ResultFiles(services.lines, services.files, services.front_id)
        self._flush = BackgroundFlush(self._results, self._lease.ended)
        self._cursor = InputCursor(services)
        self.lines = LineWindow(services, self._lease, self._cursor, self._get_key, self._woken.set)
        self._progress = ProgressLog(self._transitions)
        #: What the store of files is to the batch since a call of it has failed, '' if none has.
        self._store_hindrance = ""
        self._key: ApiKey | None = None
        #: The pools that serve the batch -> their accounts in service.
        self.accounts: Mapping[str, int] = {}
        self._last_status = ""
        #: Whether there are lines to begin, as far as the last look told.
        self.wants_lines = False
        self._done = 0
        #: Numbers of lines that had begun when they were disowned -> their custom_ids, '' where unknown.
        self._begun: dict[int, str] = {}
        #: Monotonic time since which no line has ended; None unless lines are being run.
        self.stalled_since: float | None = None

    def run(self) -> None:
        """Returns when the batch has ended, or another front may run it and no line runs here."""
        renewal = gevent.spawn(self._lease.renew)
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._lease.ended.is_set():
                try:
                    if not self._step():
                        break
                    pause, self._store_hindrance = FIRST_PAUSE_SECONDS, ""
                except (RedisError, FileStoreDown) as error:
                    if isinstance(error, FileStoreDown):
                        self._store_hindrance = FILE_STORE_FULL if isinstance(error, FileStoreFull) else FILE_STORE_AWAY
                    log.warning("batch %s has to wait: %s", self._id, error, extra={"action": "batch_waits"})
                    self._lease.ended.wait(pause)
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
        finally:
            self.lines.join()
            renewal.kill()
            self._lease.give_up()

    @property
    def is_stopped(self) -> bool:
        """Whether it begins no further line here."""
        return bool(self._lease.ended.is_set())

    def stop(self) -> None:
        """Begins no further line, and lets another front go on; the lines that run here may end."""
        self._lease.end()
        self.wants_lines, self.stalled_since = False, None
        self._woken.set()

    def _step(self) -> bool:
        """Moves the batch on by one state; False once it has ended."""
        batch = self._store.find(self._id)
        if batch is None or not batch.is_unfinished:
            self._store.forget(self._id)
            return False
        if batch.status == self._last_status:
            # The last step has not brought it on, as when the lease is lost, and this front has not noticed yet.
            self._lease.ended.wait(CHECK_SECONDS)
        self._last_status = batch.status
        self.stalled_since = None
        if batch.status != IN_PROGRESS and batch.hindrance != self._store_hindrance:
            self._transitions.note(batch, batch.samples, self._store_hindrance)
        try:
            if batch.status == VALIDATING:
                self._validate(batch)
            elif batch.status == IN_PROGRESS:
                self._run_lines(batch)
            else:
                self._finalize(batch)
        except (FileNotFound, PartNotFound):
            self._fail(batch)
        return True

    def _validate(self, batch: Batch) -> None:
        key = self._services.find_key(batch)
        if key is None:
            self._services.cancel_ownerless(batch)
            return
        record = self._services.find_input(batch)
        selector = self._services.requests.pool_selector
        validation = Validation(batch.endpoint, lambda model: selector.select(model, key), self._services.max_line)
        if record.size > MAX_BYTES:
            validation.add_error(InvalidLine("file_too_large", f"A batch may have {MAX_BYTES} bytes at most."))
        else:
            with take_turn(record.size):
                take_breaks(validation.run(self._services.files.open(record)))
        if validation.errors:
            self._transitions.fail(batch, validation.errors)
        else:
            self._transitions.begin(batch, validation.total, validation.model)

    def _run_lines(self, batch: Batch) -> None:
        """Keeps lines in flight until all have a result, or the batch is cancelled or expires."""
        record = self._services.find_input(batch)
        orphans: dict[int, RunningLine] = {}
        checked_at = orphans_checked_at = 0.0
        self._cursor.reset()
        self.stalled_since = time.monotonic()
        while not self._lease.ended.is_set():
            now = time.monotonic()
            if now - checked_at >= CHECK_SECONDS or (self._cursor.is_exhausted and not self.lines and not orphans):
                checked_at, found = now, self._check(batch)
                if found is None:
                    return
                batch = found
            if now - orphans_checked_at >= ORPHAN_CHECK_SECONDS:
                orphans_checked_at, orphans = now, find_orphans(self._services, self._id, self.lines)
            self._flush.start_if_due(batch)
            self.wants_lines = may_begin(self._key, batch)
            if self.wants_lines:
                self.lines.fill(batch, record, orphans, self._find_window())
                self._store_hindrance = ""
                self.wants_lines = bool(orphans) or not self._cursor.is_exhausted
            self._woken.wait(CHECK_SECONDS)
            self._woken.clear()

    def _fail(self, batch: Batch) -> None:
        """Ends a batch whose input is gone: no line begins any more, and those that have begun may end."""
        self.wants_lines = False
        while batch.status == IN_PROGRESS:
            current = self._check(batch)
            if current is None or self._lease.ended.is_set():
                return
            batch, orphans = current, find_orphans(self._services, self._id, self.lines)
            if orphans.keys() == self._services.lines.read_running(self._id).keys():
                record_abandoned(self._services, batch, orphans)
                break
            self._flush.start_if_due(batch)
            self._woken.wait(CHECK_SECONDS)
            self._woken.clear()
        self._transitions.fail(batch, [describe_loss(batch)])

    def _check(self, batch: Batch) -> Batch | None:
        """Reads the record again; None if the batch has come into another state."""
        current = self._store.find(batch.id)
        if current is None or current.status != IN_PROGRESS:
            return None
        self._key = self._services.find_key(current)
        if self._key is None:
            self._services.cancel_ownerless(batch)
            return None
        farm = read_farm_state(self._services.redis, self._services.list_pools(current, self._key))
        self.accounts = farm.accounts
        done = current.completed + current.failed
        if done != self._done:
            self._done, self.stalled_since = done, time.monotonic()
        if done >= current.total:
            self._transitions.finalize(current, COMPLETED)
        elif clock.now() >= current.expires_at:
            self._note_begun()
            self._transitions.finalize(current, EXPIRED)
        else:
            if current.last_line != self._cursor.last_line:
                self._cursor.reset()
            self._note_progress(current, farm)
            return current
        return None

    def _note_progress(self, batch: Batch, farm: FarmState) -> None:
        refusals = (line.refusal for line in self.lines.list_runs())
        hindrance = find_hindrance(self._key, batch, farm, self._progress.look(batch), refusals)
        self._progress.note(batch, self._store_hindrance or hindrance)

    def _find_window(self) -> int:
        """Lines that may be in flight."""
        lines, has_interactive = 0.0, False
        for pool, accounts in self.accounts.items():
            current, peak = self._services.headroom.find_interactive(pool)
            lines += count_lines(accounts, current, peak) / max(1, self._count_batches(pool))
            has_interactive = has_interactive or peak > 0
        return max(1 if has_interactive else MIN_LINES, min(MAX_LINES, int(lines)))

    def _get_key(self) -> ApiKey:
        assert self._key is not None
        return self._key

    def _finalize(self, batch: Batch) -> None:
        if batch.status == CANCELLING:
            self._note_begun()
            if not self._transitions.disown_cancelled(batch):
                return
        self.lines.kill()
        self._flush.join()
        end_batch(self._services, self._transitions, self._results, batch, self._begun)

    def _note_begun(self) -> None:
        """Called before lines are disowned: whoever runs them, they are to be named though the input may be gone."""
        running = dict.fromkeys(self._services.lines.read_running(self._id), "")
        self._begun = running | self._begun | {line.number: line.custom_id for line in self.lines.list_runs()}
