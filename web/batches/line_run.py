"""Runs one line of a batch until it has a result."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent.event import Event

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch, name_failure
from shared.batches.running_line import RunningLine, begin_run
from shared.errors import ApiError
from shared.files.file_record import FileRecord
from shared.files.part_store import FileStoreDown, PartNotFound
from shared.redis_connection.retry import retry_forever
from web.batches import lost_input
from web.batches.lines.line_parser import InvalidLine, parse_line, read_request
from web.batches.lines.line_reader import strip_line
from web.batches.lines.line_request import MAX_PAUSE_SECONDS, REFUSALS, RETRYABLE_STATUSES
from web.batches.lines.results import LineReply, build_error_reply, read_usage, render_reply
from web.batches.services import BatchServices
from web.request.body import RequestBody

log = logging.getLogger("farm.batches")
#: Times that a line is tried whose request the upstream fails; and one that finds all accounts at their rate limits, as
#: may be while the upstream names no end of them. A request that is too large for any limit ends after minutes.
MAX_TRIES, MAX_RATE_LIMITED_TRIES = 4, 12
RATE_LIMITED_STATUS = 429
#: Seconds between the first try and the second; each later pause is twice as long.
FIRST_PAUSE_SECONDS = 1.0


@dataclass
class LineRun:
    """One line in this front. `run` is called in a greenlet of its own; killing it cancels the request."""

    services: BatchServices
    batch: Batch
    input: FileRecord
    number: int
    running: RunningLine
    #: The line as it was read, None to read it again; it is not kept while the request runs.
    data: bytes | None = field(repr=False)
    #: The API key as it is now.
    find_key: Callable[[], ApiKey]
    #: Set once this front neither begins lines nor tries any again.
    stopped: Event
    #: Code with which the farm has refused it last, '' if it has not.
    refusal: str = ""
    #: '' until the line has been parsed.
    custom_id: str = ""

    def run(self) -> None:
        failures = refusals = 0
        while True:
            reply = self._try()
            self.refusal = reply.code if reply.code in REFUSALS else ""
            if self.refusal:
                refusals += 1
            elif reply.status in RETRYABLE_STATUSES and failures + 1 < count_tries(reply.status):
                failures += 1
            else:
                break
            pause = find_pause(max(failures, refusals), reply.retry_after)
            if self.stopped.wait(0 if reply.code == "shutting_down" else pause) or not self._begin_again():
                self._release()
                return
        self._record(reply)

    def _try(self) -> LineReply:
        """A fault of the farm ends the line, rather than the batch."""
        try:
            return self.services.requests.ask(
                self.find_key(), self.batch.endpoint, self.running.length, self._read_request
            )
        except Exception:
            log.exception("a line of a batch failed", extra={"action": "batch_line_failed", "reason": self.batch.id})
            message = "the farm failed to handle this request"
            return build_error_reply(ApiError(500, "internal_error", message, "server_error"), "", 0.0)

    def _read_request(self) -> RequestBody:
        """Raises ApiError: one that is waited out if the input can't be read now."""
        try:
            line = parse_line(self._read_line())
            self.custom_id = line.custom_id
            return read_request(line)
        except FileStoreDown as error:
            log.warning("the input of a batch can't be read: %s", error, extra={"action": "batch_store_down"})
            raise ApiError(503, "store_unavailable", str(error), "server_error") from None
        except PartNotFound:
            message = f"Line {self.number} of the input can't be read again: {lost_input.REASON}."
            raise ApiError(410, lost_input.CODE, message) from None
        except InvalidLine as error:
            raise ApiError(400, error.code, error.message) from None

    def _read_line(self) -> bytes:
        data, self.data = self.data, None
        if data is None:
            start = self.running.offset
            read = b"".join(self.services.files.open(self.input, start, start + self.running.length))
            data = strip_line(read, self.number)
        return data

    def _begin_again(self) -> bool:
        """Begins a new run, so that nobody takes the line for abandoned. False if it may no longer run here."""
        running = begin_run(self.services.front_id, clock.now(), self.running.offset, self.running.length)

        def begin() -> bool:
            lines, holder = self.services.lines, self.services.front_id
            return lines.begin(self.batch.id, holder, self.number, running, instead_of=self.running)

        if not retry_forever(begin, "can't begin a line of a batch yet"):
            return False
        self.running = running
        return True

    def _release(self) -> None:
        lines = self.services.lines
        retry_forever(
            lambda: lines.release(self.batch.id, self.number, self.running), "can't release a line of a batch yet"
        )

    def _record(self, reply: LineReply) -> None:
        result = render_reply(self.custom_id, reply)
        counts = count_tokens(reply) if reply.is_success else {name_failure(reply.reason): 1}
        counted_as = "completed" if reply.is_success else "failed"

        def record() -> bool:
            return self.services.lines.record_result(
                self.batch.id, self.number, self.running, counted_as, result, counts
            )

        if retry_forever(record, "can't record the result of a line yet"):
            self.services.requests.counters.increment("batch_lines", counted_as)
        else:
            fields = {"action": "batch_result_dropped", "request_id": reply.request_id, "reason": self.batch.id}
            log.info("a line of a batch has a result already, or another front runs it", extra=fields)


def count_tokens(reply: LineReply) -> dict[str, int]:
    """What a successful request has used."""
    return {} if reply.is_shared else read_usage(reply.body)


def count_tries(status: int) -> int:
    return MAX_RATE_LIMITED_TRIES if status == RATE_LIMITED_STATUS else MAX_TRIES


def find_pause(attempts: int, retry_after: float) -> float:
    """Seconds until the next try, with jitter."""
    seconds = max(retry_after, FIRST_PAUSE_SECONDS * 2 ** min(attempts - 1, 10))
    return float(random.uniform(0.75, 1.0) * min(seconds, MAX_PAUSE_SECONDS))
