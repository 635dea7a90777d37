"""Checks a large JSON object piece by piece (RFC 8259), so that the event loop can turn in between. No I/O.

`json.loads` would hold the loop for 5 to 50 ms per megabyte. So only small pieces are given to it: runs of elements,
and parts of long strings. A piece is cut where the grammar allows it, so the object is valid if every piece is.

1. Members of the object itself are read one by one: their offsets are needed to change them.
2. Within them, as many elements as end within a window are parsed at once, in the brackets of their container. Where
   that fails, one step is taken instead, into the next element.
3. A string is parsed in parts that end neither within an escape nor within a character.

An attempt that fails has to be paid from what was parsed before: the time is linear.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from shared.json_object import MAX_VALUES, InvalidObject
from shared.protocol.large_body import Edit
from web.request.media import ENCODED_FILE, MIN_MEDIUM_BYTES, find_long_strings

#: Bytes of a piece that is parsed at once, of the first one, and of the shortest run.
WINDOW_BYTES, FIRST_WINDOW_BYTES, MIN_WINDOW_BYTES = 65_536, 4096, 512
#: Containers within one another, about as many as `json.loads` takes.
MAX_DEPTH = 900
#: Bytes of the longest number, literal or name of a member that is taken.
MAX_SCALAR_BYTES = 8192
WHITESPACE = re.compile(rb"[ \t\n\r]*")
#: What a number or a literal may consist of, those included that only `json.loads` takes.
SCALAR = re.compile(rb"[-+.0-9A-Za-z]+")
#: What values in a run are counted by, as in a small body.
VALUE_MARKS = (b"[", b"{", b",")
#: Where a run of elements may end.
RUN_ENDS = (b"},", b"],", b",")
BRACKETS = {ord("{"): b"{}", ord("["): b"[]"}
QUOTE, COMMA, COLON, OBJECT = ord('"'), ord(","), ord(":"), ord("{")
#: Bytes of an escape (`\\u0000`) without its last one.
ESCAPE_BYTES = 5
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Parses the inside of a string up to its closing quote, in C: (text, start, strict) -> (value, end).
scan_string: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
INVALID = "the request body is not valid JSON"


class Span(NamedTuple):
    """Where the value of a member is."""

    start: int
    end: int


class LargeObject:
    """A JSON object, known once `check` has ended."""

    def __init__(self, body: bytes, names: tuple[str, ...], located: tuple[str, ...] = ()) -> None:
        """`names`: the members whose values are kept; `located`: those of which only the offsets are.

        None of them may be there twice.
        """
        self._body = body
        self._names = names
        self._located = located
        #: Name -> value and offsets, of those that are there.
        self.fields: dict[str, Any] = {}
        self.spans: dict[str, Span] = {}
        #: Where the object's closing bracket is.
        self.end = 0
        #: Bytes of encoded files (images, audio), and how many there are.
        self.media_bytes = self.media = 0
        self._is_empty = False
        self._position = len(BYTE_ORDER_MARK) if body.startswith(BYTE_ORDER_MARK) else 0
        #: The opening brackets of the containers around the position, within a member.
        self._containers: list[int] = []
        #: Bytes that failed attempts may still cost.
        self._credit = FIRST_WINDOW_BYTES
        self._values = 0

    def check(self) -> Iterator[None]:
        """Parses the object; yields after every piece. Raises InvalidObject."""
        self._skip_whitespace()
        if self._peek() != OBJECT:
            raise InvalidObject("the request body must be a JSON object")
        self._position += 1
        is_over = self._is_empty = self._take_end(OBJECT)
        while not is_over:
            name, start = self._take_name(), self._position
            yield from self._check_value()
            self._keep(name, Span(start, self._position))
            is_over = self._take_separator(OBJECT)
        self.end = self._position - 1
        self._skip_whitespace()
        if self._position < len(self._body):
            raise InvalidObject(INVALID)

    def build_edits(self, changes: Mapping[str, Any]) -> list[Edit]:
        """Sets members to other values: in place of those that are there, or at the end."""
        encoded = {name: json.dumps(value).encode() for name, value in changes.items()}
        edits = [Edit(*self.spans[name], value) for name, value in encoded.items() if name in self.spans]
        added = [b'"%b": %b' % (name.encode(), value) for name, value in encoded.items() if name not in self.spans]
        if added:
            separators = [] if self._is_empty else [b""]
            edits.append(Edit(self.end, len(self._body), b", ".join([*separators, *added]) + b"}"))
        return edits

    def _keep(self, name: str, span: Span) -> None:
        if name not in self._names and name not in self._located:
            return
        if name in self.spans:
            raise InvalidObject(f"{name} is given twice")
        self.spans[name] = span
        if name in self._located:
            return
        if span.end - span.start > WINDOW_BYTES:
            raise InvalidObject(f"{name} is too long")
        self.fields[name] = parse_piece(self._body[span.start : span.end])

    def _check_value(self) -> Iterator[None]:
        """Parses the value of a member, however deep, without recursion."""
        yield from self._step()
        while self._containers:
            yield
            if self._parse_run():
                continue
            level = len(self._containers)
            if self._containers[-1] == OBJECT:
                self._take_name()
            yield from self._step()
            if len(self._containers) == level:
                self._leave_containers()

    def _step(self) -> Iterator[None]:
        """Parses a string or a scalar, or enters a container that is not empty."""
        before, byte = self._position, self._peek()
        self._count_values(2 if byte in BRACKETS else 1)
        if byte in BRACKETS:
            self._position += 1
            if not self._take_end(byte):
                self._containers.append(byte)
            if len(self._containers) > MAX_DEPTH:
                raise InvalidObject(INVALID)
        elif byte == QUOTE:
            yield from self._check_string()
        else:
            self._take_scalar()
        self._credit += 2 * (self._position - before)

    def _leave_containers(self) -> None:
        """Takes what follows an element: the ends of containers, and a comma unless all have ended."""
        while self._containers and self._take_separator(self._containers[-1]):
            self._containers.pop()

    # Runs of elements

    def _parse_run(self) -> bool:
        """Parses elements that follow, as many as end within a window; False if it takes another step instead."""
        window = min(WINDOW_BYTES, self._credit)
        while window >= MIN_WINDOW_BYTES and window <= self._credit:
            if self._parse_rest(window):
                return True
            for mark in RUN_ENDS:
                end = self._body.rfind(mark, self._position, self._position + window) + len(mark) - 1
                if self._parse_elements(end):
                    self._position += 1
                    self._skip_whitespace()
                    return True
            window //= 4
        return False

    def _parse_rest(self, window: int) -> bool:
        """Parses the rest of the container if it ends with the first bracket of its kind."""
        closing = BRACKETS[self._containers[-1]][1:]
        if not self._parse_elements(self._body.find(closing, self._position, self._position + window)):
            return False
        self._position += 1
        self._containers.pop()
        self._leave_containers()
        return True

    def _parse_elements(self, end: int) -> bool:
        """Parses elements up to this offset; False, at the cost of credit, if they are no whole ones."""
        start, brackets = self._position, BRACKETS[self._containers[-1]]
        if end <= start:
            return False
        try:
            elements = json.loads(decode(brackets[:1] + self._body[start:end] + brackets[1:]))
        except (ValueError, RecursionError) as error:
            self._credit -= max(getattr(error, "pos", 0), (end - start) // 8)
            return False
        if end - start >= MIN_MEDIUM_BYTES:
            for text in find_long_strings(elements):
                self._measure_string(text, len(text))
        self._count_values(1 + sum(self._body.count(mark, start, end) for mark in VALUE_MARKS))
        self._credit += 2 * (end - start)
        self._position = end
        return True

    # Strings and scalars

    def _check_string(self) -> Iterator[None]:
        """Parses a string, in parts if it is long."""
        self._position += 1
        window, beginning, length, is_last = FIRST_WINDOW_BYTES, "", 0, False
        while not is_last:
            text, is_last = self._take_string_part(window)
            beginning, length = beginning or text, length + len(text)
            window = min(2 * window, WINDOW_BYTES)
            yield
        self._measure_string(beginning, length)

    def _take_string_part(self, window: int) -> tuple[str, bool]:
        """The next part of a string, and whether it is the last one; the position is then behind the quote."""
        start, end = self._position, self._position + window
        quote = self._body.find(b'"', start, end)
        if quote >= 0 and self._body.find(b"\\", start, quote) < 0:
            end = quote + 1
        try:
            part = decode(self._body[start : find_cut(self._body, start, end)])
            text, end = scan_string(part + '"', 0, True)
        except ValueError:
            raise InvalidObject(INVALID) from None
        if not part:
            raise InvalidObject(INVALID)
        taken = part[:end]
        self._position += len(taken) if taken.isascii() else len(taken.encode("utf-8", "surrogatepass"))
        return text, end <= len(part)

    def _measure_string(self, beginning: str, length: int) -> None:
        if length >= MIN_MEDIUM_BYTES and ENCODED_FILE.match(beginning):
            self.media += 1
            self.media_bytes += length

    def _take_scalar(self) -> None:
        match = SCALAR.match(self._body, self._position, self._position + MAX_SCALAR_BYTES)
        if not match:
            raise InvalidObject(INVALID)
        parse_piece(match[0])
        self._position = match.end()

    def _take_name(self) -> str:
        """The name of a member; the position is then that of its value."""
        if self._peek() != QUOTE:
            raise InvalidObject(INVALID)
        self._position += 1
        name, is_whole = self._take_string_part(MAX_SCALAR_BYTES)
        self._skip_whitespace()
        if not is_whole or self._peek() != COLON:
            raise InvalidObject(INVALID)
        self._position += 1
        self._skip_whitespace()
        return name

    # Between values

    def _take_end(self, container: int) -> bool:
        """Whether the container ends here; if so, the position is behind it."""
        self._skip_whitespace()
        is_over = self._peek() == BRACKETS[container][1]
        self._position += is_over
        return is_over

    def _take_separator(self, container: int) -> bool:
        """Takes what follows a value: True if its container ends, False for a comma. Raises InvalidObject."""
        if self._take_end(container):
            return True
        if self._peek() != COMMA:
            raise InvalidObject(INVALID)
        self._position += 1
        self._skip_whitespace()
        return False

    def _skip_whitespace(self) -> None:
        self._position = WHITESPACE.match(self._body, self._position).end()  # type: ignore[union-attr]

    def _peek(self) -> int:
        """The byte at the position, 0 behind the end."""
        return self._body[self._position] if self._position < len(self._body) else 0

    def _count_values(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise InvalidObject("the request body has too many values")


def find_cut(body: bytes, start: int, end: int) -> int:
    """The last offset up to `end` that is neither within a character (RFC 3629) nor within an escape of a string."""
    end = min(end, len(body))
    while start < end < len(body) and body[end] & 0xC0 == 0x80:
        end -= 1
    escape = body.rfind(b"\\u", max(start, end - ESCAPE_BYTES), end)
    if escape >= 0 and not is_escaped(body, start, escape):
        return escape
    return end - 1 if is_escaped(body, start, end) else end


def is_escaped(body: bytes, start: int, position: int) -> bool:
    """Whether a backslash before the position belongs to what is there; `start` is outside of an escape."""
    first = position
    while first > start and body[first - 1] == ord("\\"):
        first -= 1
    return (position - first) % 2 == 1


def parse_piece(piece: bytes) -> Any:
    """Parses a whole JSON value. Raises InvalidObject."""
    try:
        return json.loads(decode(piece))
    except (ValueError, RecursionError):
        raise InvalidObject(INVALID) from None


def decode(piece: bytes) -> str:
    """Decodes UTF-8 as `json.loads` does, which would guess the encoding of each piece. Raises ValueError."""
    return piece.decode("utf-8", "surrogatepass")
