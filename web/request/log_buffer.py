"""Buffers the request log entries that the front writes itself: requests that no worker has ended."""

import secrets
from collections import Counter
from collections.abc import Mapping

from flask import g
from gevent.lock import BoundedSemaphore

from shared import clock
from shared.errors import ApiError
from shared.observability.request_log import CountedEntry, LogEntry, RequestLog, build_entry
from shared.protocol.messages import RelayRequest

#: Maximum number of entries per write.
BATCH_ENTRIES = 1000
#: Maximum number of buffered entries, should Redis be down or thousands of callers be refused; more are dropped.
MAX_ENTRIES = 10_000
#: Refused requests of one API key and error code with an entry of their own, between two writes (a second).
MAX_REFUSALS_PER_FLUSH = 5
#: A request whose caller has left was not refused.
CLIENT_GONE_STATUS = 499


class RefusalCounter:
    """Sums up the refused requests of a key that is refused again and again: one entry stands for many.

    Else a client that ignores its 429s would push everybody's history out of the log.
    """

    def __init__(self) -> None:
        #: API key id and error code -> requests since the last `take_sums`, and the latest of them.
        self._counts: dict[tuple[str, str], tuple[int, LogEntry]] = {}

    def add(self, entry: LogEntry) -> bool:
        """Returns whether the refusal gets an entry of its own."""
        count, _ = self._counts.get((entry.key, entry.code), (0, entry))
        self._counts[(entry.key, entry.code)] = (count + 1, entry)
        return count < MAX_REFUSALS_PER_FLUSH

    def take_sums(self) -> list[CountedEntry]:
        """The refusals without an entry of their own, and begins again."""
        counts, self._counts = self._counts, {}
        return [
            CountedEntry(entry, count - MAX_REFUSALS_PER_FLUSH)
            for count, entry in counts.values()
            if count > MAX_REFUSALS_PER_FLUSH
        ]


class RequestLogBuffer:
    """Entries waiting to be written to the request log."""

    def __init__(self, request_log: RequestLog) -> None:
        self._request_log = request_log
        self._entries: list[CountedEntry] = []
        self._refusals = RefusalCounter()
        #: API key id and error code -> refused requests since the last `take_refused`.
        self._refused: Counter[tuple[str, str]] = Counter()
        #: The batch being written and its id, which makes a retry idempotent; one greenlet at a time writes it.
        self._batch: tuple[str, list[CountedEntry]] | None = None
        self._writing = BoundedSemaphore()

    def record_refused(self, key_id: str, error: ApiError) -> None:
        """Logs the current request of that key, which failed before it was enqueued."""
        entry = LogEntry(
            request=g.request_id,
            key=key_id,
            pool=g.get("pool", ""),
            model=g.get("model", ""),
            endpoint=g.endpoint,
            status=error.status,
            code=error.code,
        )
        self._refused[key_id, error.code] += 1
        if self._refusals.add(entry):
            self._add(entry)

    def record_ended(self, request: RelayRequest, error: ApiError, ahead: str = "") -> None:
        """Logs a request that ended while it was queued; `ahead`: whose requests were ahead of it at admission."""
        if error.status != CLIENT_GONE_STATUS:
            self._refused[request.key, error.code] += 1
        waited_ms = max(0, round(1000 * (clock.now() - request.enqueued_at)))
        outcome = {"status": error.status, "code": error.code, "ahead": ahead}
        self._add(build_entry(request, queue_ms=waited_ms, total_ms=waited_ms, **outcome))

    def record_shared(self, request: RelayRequest, status: int, code: str, end: str) -> None:
        """Logs a request that got the answer to another one, and used no tokens; `end` says how."""
        total_ms = max(0, round(1000 * (clock.now() - request.enqueued_at)))
        self._add(build_entry(request, status=status, code=code, end=end, total_ms=total_ms))

    def _add(self, entry: LogEntry, count: int = 1) -> None:
        if len(self._entries) < MAX_ENTRIES:
            self._entries.append(CountedEntry(entry, count))

    def flush(self) -> None:
        """Writes one batch. Raises RedisError and keeps the batch for a retry."""
        with self._writing:
            if not self._batch:
                for entry, count in self._refusals.take_sums():
                    self._add(entry, count)
                entries, self._entries = self._entries[:BATCH_ENTRIES], self._entries[BATCH_ENTRIES:]
                self._batch = (secrets.token_hex(8), entries) if entries else None
            if self._batch:
                batch_id, entries = self._batch
                self._request_log.write(entries, batch_id)
                self._batch = None

    def take_refused(self) -> Mapping[tuple[str, str], int]:
        """API key id and error code -> requests that were refused since the last call."""
        refused, self._refused = self._refused, Counter()
        return refused
