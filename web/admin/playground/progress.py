"""What is known of a playground's request while it waits, and once it has ended."""

import time
from collections.abc import Callable

from redis import Redis
from rq.job import Job

from shared import keys, names
from shared.observability.names_by_id import find_credential_names
from shared.observability.request_log import FailedAttempt, LogFilter, RequestLog, StoredEntry
from shared.protocol.relay_queue import QUEUED_FIELD
from shared.queue_view.pool_queue import QueueView
from web.admin.playground.schemas import Ended, Tried, WaitState
from web.request.pending import PendingRequest

#: Waiting requests among which the position is looked for.
MAX_POSITION = 2000
#: Newest entries of the request log that are searched, seconds for which, and seconds between two looks.
MAX_ENTRIES, LOG_PATIENCE_SECONDS, LOOK_SECONDS = 2000, 3.0, 0.1
#: Where a job waits -> state of its request; a started one waits nowhere.
STATES = {b"1": "queued", b"aside": "queued", b"held": "held", b"retry": "retry"}


class Progress:
    """Looks after one request."""

    def __init__(self, redis: Redis, view: QueueView, pending_request: PendingRequest, credential_id: str) -> None:
        """`credential_id`: the one it was sent to, '' for a queued request."""
        self._redis = redis
        self._view = view
        self._pool, self._request_id = pending_request.request.pool, pending_request.request.id
        self._since = pending_request.request.enqueued_at
        self._credential_id = credential_id

    def describe_wait(self) -> WaitState:
        if self._credential_id:
            return self._build_wait("sent", self._credential_id)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(Job.key_for(self._request_id), QUEUED_FIELD, "worker_name")
            pipe.exists(keys.paused(names.configured_pool(self._pool)))
            pipe.exists(keys.breaker(self._pool))
            (lined, worker), is_paused, is_upstream_down = pipe.execute()
        state = STATES.get(lined or b"", "running")
        if state == "running":
            return self._build_wait(state, credential_of(worker))
        state = "paused" if is_paused else "upstream_down" if is_upstream_down else state
        position, eta = self._view.find_turn(self._pool, self._request_id, MAX_POSITION) or (None, None)
        return WaitState(state=state, position=position, eta=eta)

    def _build_wait(self, state: str, credential: str) -> WaitState:
        return WaitState(
            state=state, position=None, eta=None, credential=credential, credential_name=self.find_name(credential)
        )

    def find_credential(self) -> str:
        """The credential that serves the request now; '' once the job has ended."""
        return self._credential_id or credential_of(self._redis.hget(Job.key_for(self._request_id), "worker_name"))

    def find_name(self, credential_id: str) -> str:
        return find_credential_names(self._redis, [credential_id]).get(credential_id, "")

    def describe_end(self, status: int, code: str, message: str, sleep: Callable[[float], object]) -> Ended:
        """Waits for the request's entry in the log, which is written right after its end."""
        give_up_at = time.monotonic() + LOG_PATIENCE_SECONDS
        while (stored := self._find_entry()) is None and time.monotonic() < give_up_at:
            sleep(LOOK_SECONDS)
        if stored is None:
            return Ended(status=status, code=code, message=message, credential=self._credential_id, is_logged=False)
        return self._build_end(stored, status, code, message)

    def _find_entry(self) -> StoredEntry | None:
        entries = RequestLog(self._redis).read_newest_first(LogFilter(since=self._since - 1))
        newest = (entry for _, entry in zip(range(MAX_ENTRIES), entries, strict=False))
        return next((entry for entry in newest if entry.entry.request == self._request_id), None)

    def _build_end(self, stored: StoredEntry, status: int, code: str, message: str) -> Ended:
        entry = stored.entry
        tried = FailedAttempt.parse(entry.tried)
        found = find_credential_names(self._redis, [entry.credential, *(attempt.credential for attempt in tried)])
        reply_ms = entry.total_ms - entry.first_ms
        # The first token came with the first byte.
        tokens = entry.completion_tokens - 1
        has_rate = entry.first_ms and reply_ms > 0 and tokens > 0
        return Ended(
            status=status or entry.status,
            code=code or entry.code,
            message=message,
            credential=entry.credential,
            credential_name=found.get(entry.credential, ""),
            attempts=entry.attempts,
            tried=[Tried(**vars(each), credential_name=found.get(each.credential, "")) for each in tried],
            queue_ms=entry.queue_ms,
            first_ms=entry.first_ms,
            total_ms=entry.total_ms,
            prompt_tokens=entry.prompt_tokens,
            completion_tokens=entry.completion_tokens,
            estimated=bool(entry.estimated),
            tokens_per_second=round(1000 * tokens / reply_ms, 1) if has_rate else None,
        )


def credential_of(worker: bytes | None) -> str:
    """The credential of an RQ worker, '' for none."""
    return names.credential_id_of(worker.decode(errors="replace")) if worker else ""
