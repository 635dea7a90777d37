"""Parses and writes server-sent events (HTML standard, "Server-sent events"). No I/O."""

from shared.errors import ApiError

#: Comment sent while a stream is silent; clients ignore it.
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"
#: An event ends with an empty line; lines end with LF, CR LF or CR. A CR may be half of a CR LF, so LF CR ends an event
#: only before another byte.
EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
LF_CR = b"\n\r"
#: Trailing bytes of a chunk in which an event end can start.
OVERLAP_BYTES = 3


class EventBuffer:
    """Passes only complete events, so that a comment or an error never lands inside one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Adds data; returns the events that are complete now, or b''."""
        if data.endswith(EVENT_ENDS):
            complete = b"".join((*self._parts, data)) if self._parts else data
            self._parts, self._tail = [], b""
            return complete
        searched = self._tail + data
        end = find_last_end(searched)
        if not end:
            self._parts.append(data)
            self._tail = searched[-OVERLAP_BYTES:]
            return b""
        cut = end - len(self._tail)
        complete = b"".join((*self._parts, data[:cut]))
        rest = data[cut:]
        self._parts = [rest] if rest else []
        self._tail = rest[-OVERLAP_BYTES:]
        return complete

    def flush(self) -> bytes:
        """Returns the rest of a stream that has ended normally."""
        rest = b"".join(self._parts)
        self._parts.clear()
        return rest


def find_last_end(data: bytes) -> int:
    """Returns where the last complete event ends, 0 if none does."""
    ends = [at + len(mark) for mark in EVENT_ENDS if (at := data.rfind(mark)) >= 0]
    # One that is followed by a LF is found above.
    if (at := data.rfind(LF_CR, 0, -1)) >= 0:
        ends.append(at + len(LF_CR))
    return max(ends, default=0)


def extract_data(event: bytes) -> bytes:
    """Returns an event's data lines, joined; b'' for a comment."""
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def build_error_event(error: ApiError) -> bytes:
    """Returns the event that ends a failed stream; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"
