"""Parses and writes server-sent events (HTML standard, section 9.2). No I/O.

The one parser for all that look into streams. EventBuffer cuts the bytes of a stream between events, whatever their
packets; `parse_events` says what is in them.

Some upstreams end each `data` line with a single line end and send no empty line. By the standard that is one
long event; clients that read such streams take each line by itself. An event is taken for this form when its first
data line is a JSON object of its own and the second one begins another.
"""

import re
from typing import NamedTuple

from shared.errors import ApiError

#: Comment sent while a stream is silent; clients ignore it.
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"
#: The same within an event: an empty line would end that.
KEEP_ALIVE_LINE = b": keep-alive\n"
#: An event ends with an empty line, and a line with CR LF, LF or CR. So it ends with any two line ends that are not one
#: CR LF. The second CR may be half of a CR LF, whose LF then begins the next event and ends nothing.
EVENT_ENDS = (b"\n\n", b"\n\r", b"\r\r")
PASSING_ENDS = (*EVENT_ENDS, b"\n\r\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DONE = b"[DONE]"
LINE_BREAK = re.compile("\r\n|\r|\n")
LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
DATA_LINE = re.compile(rb"(?:\A|(?<=[\r\n]))data(?::[^\r\n]*)?(?:\r\n|\n|\r)")
#: How often an event is examined for single line ends at most: its first two data lines tell.
MAX_EXAMINATIONS = 16
#: Bytes for which an `event` field waits for the data line that it belongs to.
MAX_FIELD_BYTES = 256


class Event(NamedTuple):
    """One event of a stream, or comments and other fields between two."""

    #: All its bytes, with the empty line that ends it.
    raw: bytes
    #: The value of `event`, b'' without one.
    type: bytes
    #: The data lines, joined by line feeds; None without any.
    data: bytes | None


class EventBuffer:
    """Passes only complete events, so that a comment or an error never lands inside one."""

    def __init__(self) -> None:
        #: The incomplete event that is held back.
        self._parts: list[bytes] = []
        #: Bytes of it.
        self.rest_size = 0
        #: The last byte of `_parts`, which may be half of an event end.
        self._tail = b""
        #: Whether the current event has single line ends, so that its data lines pass one by one; None: not known yet.
        self._is_by_line: bool | None = None
        self._examinations = 0
        #: Whether what has passed ends within an event, after a line.
        self.is_within_event = False

    def feed(self, data: bytes) -> bytes:
        """Adds data; returns the events that are complete now, or b''. Takes linear time in all."""
        if data.endswith(PASSING_ENDS):
            if not self._parts and not self.is_within_event:
                return data
            complete = b"".join((*self._parts, data))
            self._begin_event(b"")
            return complete
        end = find_last_end(self._tail + data) - len(self._tail)
        if end > 0:
            complete = b"".join((*self._parts, data[:end]))
            self._begin_event(data[end:])
            return complete + self._take_lines() if has_line_end(data[end:]) else complete
        if data:
            self._parts.append(data)
            self.rest_size += len(data)
            self._tail = data[-1:]
        return self._take_lines() if has_line_end(data) else b""

    def rest(self) -> bytes:
        """The incomplete event that is held back."""
        return b"".join(self._parts)

    def flush(self) -> bytes:
        """Returns the rest of a stream that has ended normally."""
        rest = self.rest()
        self._begin_event(b"")
        return rest

    def _begin_event(self, data: bytes) -> None:
        self._parts, self.rest_size, self._tail = [data] if data else [], len(data), data[-1:]
        self._is_by_line, self._examinations = None, 0
        self.is_within_event = False

    def _take_lines(self) -> bytes:
        """The complete data lines of an event that has single line ends; b'' of any other."""
        if self._is_by_line is None:
            self._examinations += 1
            self._is_by_line = has_single_line_ends(self.rest()) if self._examinations <= MAX_EXAMINATIONS else False
        if not self._is_by_line:
            return b""
        held = self.rest()
        end = 1 + max(held.rfind(b"\n"), held.rfind(b"\r"))
        event_field = held.rfind(b"event", 0, end)
        if event_field >= 0 and end - event_field <= MAX_FIELD_BYTES:
            end = max((match.end() for match in DATA_LINE.finditer(held, 0, end)), default=0)
        rest = held[end:]
        self._parts, self.rest_size, self._tail = [rest] if rest else [], len(rest), held[-1:]
        self.is_within_event = self.is_within_event or end > 0
        return held[:end]


def find_last_end(data: bytes) -> int:
    """Returns where the last complete event ends, 0 if none does."""
    end = max(data.rfind(mark) for mark in EVENT_ENDS) + 2
    if end < 2:
        return 0
    return end + 1 if data[end - 1 : end + 1] == b"\r\n" else end


def has_line_end(data: bytes) -> bool:
    return b"\n" in data or b"\r" in data


def has_single_line_ends(event: bytes) -> bool | None:
    """Whether each data line of an event is one of its own; None while too little of it is there to tell."""
    has_object = False
    for match in LINE.finditer(event.removeprefix(BYTE_ORDER_MARK)):
        name, _, value = match[1].partition(b":")
        if name != b"data":
            continue
        value = value.strip()
        if has_object:
            return begins_object(value) if match[2] or not DONE.startswith(value) else None
        if not match[2]:
            return None
        if not is_object_like(value):
            return False
        has_object = True
    return None


def begins_object(data: bytes) -> bool:
    return data.startswith((b"{", DONE))


def is_object_like(data: bytes) -> bool:
    """Whether a data line alone may be a whole message of OpenAI's API."""
    return data == DONE or (data.startswith(b"{") and data.endswith(b"}"))


def parse_events(data: bytes) -> list[Event]:
    """The events of complete ones, as EventBuffer passes them, and what is between them; their bytes are all of `data`.

    A byte order mark may stand before the first event of a stream.
    """
    events: list[Event] = []
    start, event_type = 0, b""
    lines: list[tuple[bytes, int, bytes]] = []
    for match in LINE.finditer(data, len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0):
        name, _, value = match[1].partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            lines.append((value, match.end(), event_type))
        elif name == b"event":
            event_type = value
        if not match[1] or match.end() == len(data):
            if match.end() > start:
                events += build_events(data, start, match.end(), event_type, lines)
            start, event_type, lines = match.end(), b"", []
    return events


def build_events(
    data: bytes, start: int, end: int, event_type: bytes, lines: list[tuple[bytes, int, bytes]]
) -> list[Event]:
    """The event between two offsets; several if it has single line ends. `lines`: its data, with offset and type."""
    if not lines:
        return [Event(data[start:end], event_type, None)]
    is_by_line = len(lines) > 1 and is_object_like(lines[0][0].strip()) and begins_object(lines[1][0].lstrip())
    if not is_by_line:
        return [Event(data[start:end], event_type, b"\n".join(value for value, _, _ in lines))]
    ends = [line_end for _, line_end, _ in lines[:-1]] + [end]
    starts = [start, *ends[:-1]]
    return [
        Event(data[first:last], line_type, value)
        for first, last, (value, _, line_type) in zip(starts, ends, lines, strict=True)
    ]


def replace_data(event: Event, data: bytes) -> bytes:
    """The event's bytes with other data in place of its own, which it must have; nothing else changes."""
    replaced = False
    parts = []
    for match in LINE.finditer(event.raw):
        name = match[1].removeprefix(BYTE_ORDER_MARK).partition(b":")[0]
        if name != b"data":
            parts.append(match[0])
        elif not replaced:
            replaced = True
            prefix = match[1][: match[1].index(b"data")]
            parts += [prefix, *(b"data: " + line + match[2] for line in data.split(b"\n"))]
    return b"".join(parts)


def build_error_event(error: ApiError) -> bytes:
    """Returns the event that ends a failed stream; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"


def encode_event(data: str, event_type: str = "") -> str:
    """Writes an event; whatever breaks a line begins another line of data. Lines of white space are left out."""
    lines = [f"data: {line}\n" for line in LINE_BREAK.split(data) if line.strip()]
    return (f"event: {event_type}\n" if event_type else "") + "".join(lines) + "\n"
