"""Splits the input of a batch into lines, piece by piece. No I/O."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from web.request.large_json import BYTE_ORDER_MARK


class InputLine(NamedTuple):
    """A line that is not blank."""

    #: Counted from 1, blank lines too.
    number: int
    #: Where it is in the input, with its end of line.
    offset: int
    length: int
    #: Without white space around it, and without a byte order mark before the first; None if it is too long.
    data: bytes | None


def iter_lines(pieces: Iterable[bytes], max_bytes: int, number: int = 1, offset: int = 0) -> Iterator[InputLine]:
    """Yields the lines of pieces that begin at this line and offset of the input; reads no further than it has to."""
    kept: list[bytes] = []
    kept_bytes = length = 0
    # Which lines are blank must not depend on `max_bytes`.
    is_blank = True

    def build_line() -> InputLine:
        data = strip_line(b"".join(kept), number) if kept_bytes <= max_bytes else None
        return InputLine(number, offset, length, data)

    for piece in pieces:
        start = 0
        while start < len(piece):
            newline = piece.find(b"\n", start)
            end = newline + 1 or len(piece)
            is_blank = is_blank and piece[start:end].isspace()
            kept_bytes += end - start
            length += end - start
            if kept_bytes <= max_bytes:
                kept.append(piece[start:end])
            else:
                kept.clear()
            start = end
            if newline >= 0:
                if not is_blank:
                    yield build_line()
                number, offset, length, kept_bytes, is_blank = number + 1, offset + length, 0, 0, True
                kept.clear()
    if not is_blank:
        yield build_line()


def strip_line(data: bytes, number: int) -> bytes:
    """Takes white space off a line, and a byte order mark off the first one."""
    stripped = data.strip()
    return stripped.removeprefix(BYTE_ORDER_MARK).strip() if number == 1 else stripped
