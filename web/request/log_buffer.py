"""What the front itself writes to the request log: requests that no worker has ended, a second's worth at a time."""

import secrets
import time

from flask import g

from shared.errors import ApiError
from shared.observability.request_log import LogEntry, RequestLog, build_entry
from shared.protocol.messages import RelayRequest

#: Entries written at a time.
BATCH_ENTRIES = 1000
#: Entries that wait at most, should Redis be away or callers be refused by the thousand; more are only counted.
MAX_ENTRIES = 10_000


class RequestLogBuffer:
    """Entries that wait to be written."""

    def __init__(self, request_log: RequestLog) -> None:
        self._request_log = request_log
        self._entries: list[LogEntry] = []
        #: What is being written, perhaps not for the first time, under one name.
        self._batch: tuple[str, list[LogEntry]] | None = None

    def record_refused(self, key_id: str, error: ApiError) -> None:
        """The present request of that key ended with an error before it was on its way."""
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
        """A request that waited in the queue ended there."""
        waited_ms = max(0, round(1000 * (time.time() - request.enqueued_at)))
        self._add(build_entry(request, queue_ms=waited_ms, total_ms=waited_ms, status=error.status, code=error.code))

    def _add(self, entry: LogEntry) -> None:
        if len(self._entries) < MAX_ENTRIES:
            self._entries.append(entry)

    def flush(self) -> None:
        """Writes what waits. Raises RedisError, OSError, and keeps it then."""
        if not self._batch:
            entries, self._entries = self._entries[:BATCH_ENTRIES], self._entries[BATCH_ENTRIES:]
            self._batch = (secrets.token_hex(8), entries) if entries else None
        if self._batch:
            batch_id, entries = self._batch
            self._request_log.write(entries, batch_id)
            self._batch = None
