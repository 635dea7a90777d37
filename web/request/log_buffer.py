"""Buffers the request log entries that the front writes itself: requests that no worker has ended."""

import secrets

from flask import g

from shared import clock
from shared.errors import ApiError
from shared.observability.request_log import LogEntry, RequestLog, build_entry
from shared.protocol.messages import RelayRequest

#: Maximum number of entries per write.
BATCH_ENTRIES = 1000
#: Maximum number of buffered entries, should Redis be down or thousands of callers be refused; more are dropped.
MAX_ENTRIES = 10_000


class RequestLogBuffer:
    """Entries waiting to be written to the request log."""

    def __init__(self, request_log: RequestLog) -> None:
        self._request_log = request_log
        self._entries: list[LogEntry] = []
        #: The batch being written and its id, which makes a retry idempotent.
        self._batch: tuple[str, list[LogEntry]] | None = None

    def record_refused(self, key_id: str, error: ApiError) -> None:
        """Logs the current request of that key, which failed before it was enqueued."""
        self._add(
            LogEntry(
                request=g.request_id,
                key=key_id,
                pool=g.get("pool", ""),
                model=g.get("model", ""),
                endpoint=g.endpoint,
                status=error.status,
                code=error.code,
            )
        )

    def record_ended(self, request: RelayRequest, error: ApiError) -> None:
        """Logs a request that ended while it was queued."""
        waited_ms = max(0, round(1000 * (clock.now() - request.enqueued_at)))
        self._add(build_entry(request, queue_ms=waited_ms, total_ms=waited_ms, status=error.status, code=error.code))

    def _add(self, entry: LogEntry) -> None:
        if len(self._entries) < MAX_ENTRIES:
            self._entries.append(entry)

    def flush(self) -> None:
        """Writes one batch. Raises RedisError and keeps the batch for a retry."""
        if not self._batch:
            entries, self._entries = self._entries[:BATCH_ENTRIES], self._entries[BATCH_ENTRIES:]
            self._batch = (secrets.token_hex(8), entries) if entries else None
        if self._batch:
            batch_id, entries = self._batch
            self._request_log.write(entries, batch_id)
            self._batch = None
