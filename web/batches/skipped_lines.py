"""Records the lines that a batch skips, as it has expired or was cancelled, in its error file."""

from collections.abc import Iterator

from shared import keys
from shared.batches.batch import CANCELLED, EXPIRED, Batch
from web.batches.lines.line_parser import InvalidLine, parse_line
from web.batches.lines.line_reader import iter_lines
from web.batches.lines.results import render_skipped
from web.batches.result_files import ResultFiles
from web.batches.services import BatchServices
from web.batches.validation import take_turn
from web.request.cooperative import take_breaks

#: Outcome of the batch -> code and message of a line (OpenAI API reference, "The request output object").
ERRORS = {
    EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
#: Lines recorded by one call, and between two parts.
LINES_AT_ONCE, LINES_PER_PART = 200, 4000


def record_skipped(services: BatchServices, results: ResultFiles, batch: Batch, outcome: str) -> None:
    """Raises FileNotFound, FileStoreDown, RedisError; repeated, it goes on where it was."""
    done = services.redis.get(keys.batch_done(batch.id)) or b""
    found: dict[int, bytes] = {}
    record = services.find_input(batch)

    def collect() -> Iterator[None]:
        for line in iter_lines(services.files.open(record), services.max_line):
            if not is_set(done, line.number):
                found[line.number] = render_skipped(read_custom_id(line.data), *ERRORS[outcome])
            if len(found) >= LINES_AT_ONCE:
                services.lines.record_skipped(batch.id, services.front_id, ERRORS[outcome][0], found)
                found.clear()
                if line.number % LINES_PER_PART < LINES_AT_ONCE:
                    results.flush(batch)
            yield

    with take_turn(record.size):
        take_breaks(collect())
    if found:
        services.lines.record_skipped(batch.id, services.front_id, ERRORS[outcome][0], found)


def is_set(bits: bytes, number: int) -> bool:
    """A bit as Redis' GETBIT counts it."""
    position, bit = divmod(number, 8)
    return position < len(bits) and bool(bits[position] >> (7 - bit) & 1)


def read_custom_id(data: bytes | None) -> str:
    try:
        return parse_line(data or b"").custom_id
    except InvalidLine:
        return ""
