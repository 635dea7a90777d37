"""Validates the input of a batch, line by line."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from gevent.lock import BoundedSemaphore

from shared.errors import ApiError
from web.batches.lines.line_parser import InvalidLine, check_line, parse_line
from web.batches.lines.line_reader import InputLine, iter_lines

#: Bounds of a batch (OpenAI API reference, "Create batch").
MAX_LINES, MAX_BYTES = 50_000, 200 * 1024 * 1024
#: Errors that are reported at most.
MAX_ERRORS = 100
DIGEST_BYTES = 12
#: Bytes of an input up to which it is read at once. Of larger ones a front holds lines of any length in memory, so that
#: they take turns.
SMALL_BYTES = 1024 * 1024
large_inputs = BoundedSemaphore(2)


@dataclass
class Validation:
    """What is known of an input, once `run` has ended."""

    endpoint: str
    #: Raises ApiError if the API key may not use the model, or no pool serves it.
    check_model: Callable[[str], object]
    #: Bytes of a line.
    max_line: int
    total: int = 0
    #: The model of the first line.
    model: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)
    _custom_ids: set[bytes] = field(default_factory=set)
    #: Models that were checked -> why they can't be used, None if they can.
    _models: dict[str, InvalidLine | None] = field(default_factory=dict)

    def run(self, pieces: Iterable[bytes]) -> Iterator[None]:
        """Yields after each line, so that the event loop can turn."""
        for line in iter_lines(pieces, self.max_line):
            try:
                self._check(line)
            except InvalidLine as error:
                self.add_error(error, line.number)
            if self.total > MAX_LINES or len(self.errors) >= MAX_ERRORS:
                break
            yield
        if self.total > MAX_LINES:
            message = f"A batch may have {MAX_LINES} requests at most."
            self.errors = []
            self.add_error(InvalidLine("too_many_lines", message))
        elif not self.total:
            message = "The input file is empty: a batch has at least one request."
            self.add_error(InvalidLine("empty_file", message))

    def add_error(self, error: InvalidLine, line: int | None = None) -> None:
        self.errors.append(error.describe(line))

    def _check(self, line: InputLine) -> None:
        self.total += 1
        if line.data is None:
            raise InvalidLine("line_too_long", f"A line may have {self.max_line} bytes at most.")
        parsed = parse_line(line.data)
        body = check_line(parsed, self.endpoint)
        digest = blake2b(parsed.custom_id.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
        if digest in self._custom_ids:
            message = "The custom_id of this request is that of another one: it must be unique in a batch."
            raise InvalidLine("duplicate_custom_id", message, "custom_id")
        self._custom_ids.add(digest)
        self.model = self.model or body.model
        if body.model not in self._models:
            self._models[body.model] = self._try_model(body.model)
        if error := self._models[body.model]:
            raise error

    def _try_model(self, model: str) -> InvalidLine | None:
        try:
            self.check_model(model)
        except ApiError as error:
            return InvalidLine(error.code, error.message, "body.model")
        return None


def take_turn(size: int) -> AbstractContextManager[object]:
    """The turn of an input of so many bytes to have all its lines parsed."""
    return large_inputs if size > SMALL_BYTES else nullcontext()
