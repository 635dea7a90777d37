"""Records the lines that a batch skips, as it has expired or was cancelled, in its error file."""

from collections.abc import Iterator, Mapping

from shared import keys
from shared.batches.batch import CANCELLED, EXPIRED, Batch
from shared.files.file_record import FileRecord
from shared.files.file_store import FileNotFound
from shared.files.part_store import PartNotFound
from web.batches.lines.line_parser import InvalidLine, parse_line
from web.batches.lines.line_reader import iter_lines
from web.batches.lines.results import render_skipped
from web.batches.lost_input import render_lost
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


def record_skipped(
    services: BatchServices, results: ResultFiles, batch: Batch, outcome: str, begun: Mapping[int, str]
) -> bool:
    """Whether all could be read; if not, those of the lines `begun` (number -> custom_id) are recorded, too.

    Raises FileStoreDown, RedisError; repeated, it goes on where it was.
    """
    code, message = ERRORS[outcome]
    try:
        record_lines(services, results, batch, outcome, services.find_input(batch))
    except (FileNotFound, PartNotFound):
        lost = {number: render_lost(number, custom_id, code, message) for number, custom_id in begun.items()}
        if lost:
            services.lines.record_skipped(batch.id, services.front_id, code, lost)
        return False
    return True


def record_lines(
    services: BatchServices, results: ResultFiles, batch: Batch, outcome: str, input_file: FileRecord
) -> None:
    """Raises PartNotFound, FileStoreDown, RedisError."""
    done = services.redis.get(keys.batch_done(batch.id)) or b""
    code, message = ERRORS[outcome]
    found: dict[int, bytes] = {}

    def record() -> None:
        services.lines.record_skipped(batch.id, services.front_id, code, found)
        found.clear()

    def collect() -> Iterator[None]:
        for line in iter_lines(services.files.open(input_file), services.max_line):
            if not is_set(done, line.number):
                found[line.number] = render_skipped(read_custom_id(line.data), code, message)
            if len(found) >= LINES_AT_ONCE:
                record()
                if line.number % LINES_PER_PART < LINES_AT_ONCE:
                    results.flush(batch)
            yield

    try:
        with take_turn(input_file.size):
            take_breaks(collect())
    finally:
        # What could be read before a part that is gone has a result, too.
        if found:
            record()


def is_set(bits: bytes, number: int) -> bool:
    """A bit as Redis' GETBIT counts it."""
    position, bit = divmod(number, 8)
    return position < len(bits) and bool(bits[position] >> (7 - bit) & 1)


def read_custom_id(data: bytes | None) -> str:
    try:
        return parse_line(data or b"").custom_id
    except InvalidLine:
        return ""
