"""Server-sent events as bytes: where one ends, a comment, an error event; pure.

Source: the HTML standard, "Server-sent events". Events end with an empty line.
"""

from shared.errors import ApiError

COMMENT = b": keep-alive\n\n"
#: An empty line ends an event, whatever ends the lines.
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
#: Bytes of the last piece in which an end can have begun.
OVERLAP = 3


class WholeEvents:
    """Lets only whole events through, so that a comment or an error never lands inside one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._tail = b""

    def add(self, data: bytes) -> bytes:
        """The whole events that are there now."""
        searched = self._tail + data
        end = max(found + len(one) if (found := searched.rfind(one)) >= 0 else 0 for one in EVENT_ENDS)
        if not end:
            self._parts.append(data)
            self._tail = searched[-OVERLAP:]
            return b""
        cut = end - len(self._tail)
        whole = b"".join((*self._parts, data[:cut]))
        rest = data[cut:]
        self._parts = [rest] if rest else []
        self._tail = rest[-OVERLAP:]
        return whole

    def rest(self) -> bytes:
        """What is left when the stream has ended well."""
        rest = b"".join(self._parts)
        self._parts.clear()
        return rest


def error_event(error: ApiError) -> bytes:
    """The event that ends a stream which can't be completed; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"
