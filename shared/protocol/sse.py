"""Server-sent events as bytes: where one ends, and what they carry; pure.

Source: the HTML standard, "Server-sent events". Events end with an empty line.
"""

from shared.errors import ApiError

#: Sent while a stream is silent; clients ignore comments.
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"
#: An empty line ends an event, whatever ends the lines.
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
#: Bytes of the last piece in which an end can have begun.
OVERLAP_BYTES = 3


class EventBuffer:
    """Lets only whole events through, so that a comment or an error never lands inside one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """The whole events that are there now."""
        if data.endswith(EVENT_ENDS):
            whole = b"".join((*self._parts, data)) if self._parts else data
            self._parts, self._tail = [], b""
            return whole
        searched = self._tail + data
        end = max(found + len(one) if (found := searched.rfind(one)) >= 0 else 0 for one in EVENT_ENDS)
        if not end:
            self._parts.append(data)
            self._tail = searched[-OVERLAP_BYTES:]
            return b""
        cut = end - len(self._tail)
        whole = b"".join((*self._parts, data[:cut]))
        rest = data[cut:]
        self._parts = [rest] if rest else []
        self._tail = rest[-OVERLAP_BYTES:]
        return whole

    def flush(self) -> bytes:
        """What is left when the stream has ended well."""
        rest = b"".join(self._parts)
        self._parts.clear()
        return rest


def extract_data(event: bytes) -> bytes:
    """What an event carries: its data lines; b'' for a comment."""
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def error_event(error: ApiError) -> bytes:
    """The event that ends a stream which can't be completed; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"
