"""Reads a multipart form (RFC 7578) as it arrives: its text fields, and its file in pieces.

As strict as web/request/multipart.py, which needs the whole body; a boundary in the content is refused, not guessed at.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from web.request.multipart import (
    CRLF,
    MAX_FIELD_BYTES,
    MAX_HEADER_BYTES,
    InvalidForm,
    parse_delimiter,
    parse_headers,
    parse_parameters,
)

#: Parts in a form.
MAX_PARTS = 32
#: A name in the encoding of RFC 8187, which some programs send beside or instead of `filename`.
ENCODED_NAME = re.compile(r"utf-8'[^']*'(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class FieldValue:
    """A text field."""

    name: str
    value: str


@dataclass(frozen=True)
class FileStart:
    """The head of a part with a file name; its FilePieces follow."""

    name: str
    filename: str


@dataclass(frozen=True)
class FilePiece:
    """Content of the file."""

    data: bytes


FormEvent = FieldValue | FileStart | FilePiece


def parse_form(pieces: Iterable[bytes], content_type: str) -> Iterator[FormEvent]:
    """Yields what the pieces of the body hold. Raises InvalidForm."""
    parser = FormParser(parse_delimiter(content_type))
    for piece in pieces:
        yield from parser.feed(piece)
    parser.finish()


class FormParser:
    """Takes the body in pieces of any size; holds back little more than a delimiter, or the head of a part."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = CRLF + delimiter
        # The first delimiter has no line before it that it could end.
        self._buffer = bytearray(CRLF)
        self._read: Callable[[], Iterator[FormEvent]] = self._read_start
        self._is_waiting = False
        self._parts = 0
        #: Name and value, so far, of the text field that is being read; None while a file is.
        self._field: tuple[str, bytearray] | None = None

    def feed(self, piece: bytes) -> Iterator[FormEvent]:
        """Raises InvalidForm."""
        self._buffer += piece
        self._is_waiting = False
        while not self._is_waiting:
            yield from self._read()

    def finish(self) -> None:
        """Raises InvalidForm if there must be more."""
        if self._read != self._read_epilogue:
            raise InvalidForm("it is incomplete")

    def _read_start(self) -> Iterator[FormEvent]:
        """An empty line may come before the first delimiter: some programs begin each part so, the first too."""
        if len(self._buffer) < len(CRLF) + len(self._delimiter):
            self._is_waiting = True
            return iter(())
        if self._buffer.startswith(CRLF + CRLF):
            self._take(len(CRLF))
        if not self._buffer.startswith(self._delimiter):
            raise InvalidForm("no delimiter at the start")
        self._take(len(self._delimiter))
        self._read = self._read_delimiter_end
        return iter(())

    def _read_delimiter_end(self) -> Iterator[FormEvent]:
        if len(self._buffer) < len(CRLF):
            self._is_waiting = True
        elif (end := self._take(2)) == b"--":
            self._read = self._read_epilogue
        elif end == CRLF:
            self._read = self._read_head
        else:
            raise InvalidForm("a delimiter is not on a line of its own")
        return iter(())

    def _read_head(self) -> Iterator[FormEvent]:
        end = self._buffer.find(CRLF + CRLF, 0, MAX_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEADER_BYTES:
                raise InvalidForm("a part without headers, or with too many")
            self._is_waiting = True
            return
        name, filename = parse_disposition(self._take(end))
        # The line before the content belongs to the delimiter if there is no content.
        self._take(len(CRLF))
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidForm("it has too many parts")
        self._field = (name, bytearray()) if filename is None else None
        self._read = self._read_first_line
        if filename is not None:
            yield FileStart(name, filename)

    def _read_first_line(self) -> Iterator[FormEvent]:
        """Drops the end of the head, unless it begins the next delimiter: the content is empty then."""
        if len(self._buffer) < len(self._delimiter) and self._delimiter.startswith(self._buffer):
            self._is_waiting = True
            return iter(())
        if not self._buffer.startswith(self._delimiter):
            self._take(len(CRLF))
        self._read = self._read_content
        return iter(())

    def _read_content(self) -> Iterator[FormEvent]:
        end = self._buffer.find(self._delimiter)
        if end >= 0:
            yield from self._keep(self._take(end))
            self._take(len(self._delimiter))
            if self._field is not None:
                yield FieldValue(self._field[0], self._field[1].decode(errors="replace"))
            self._read = self._read_delimiter_end
            return
        self._is_waiting = True
        yield from self._keep(self._take(max(0, len(self._buffer) - len(self._delimiter) + 1)))

    def _keep(self, data: bytes) -> Iterator[FormEvent]:
        if self._field is not None:
            self._field[1].extend(data)
            if len(self._field[1]) > MAX_FIELD_BYTES:
                raise InvalidForm(f"the field {self._field[0]!r} is too long")
        elif data:
            yield FilePiece(data)

    def _read_epilogue(self) -> Iterator[FormEvent]:
        self._buffer.clear()
        self._is_waiting = True
        return iter(())

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def parse_disposition(head: bytes) -> tuple[str, str | None]:
    """The name of a part, and of its file; None for a text field. Raises InvalidForm."""
    disposition = parse_headers(head).get("content-disposition", "")
    fields = parse_parameters(disposition)
    name = fields.get("name", "")
    if disposition.partition(";")[0].strip().lower() != "form-data" or not name:
        raise InvalidForm("a part without a name")
    if encoded := ENCODED_NAME.fullmatch(fields.get("filename*", "")):
        return name, unquote(encoded[1])
    filename = fields.get("filename")
    return name, None if filename is None else filename.replace('\\"', '"').replace("%22", '"')
