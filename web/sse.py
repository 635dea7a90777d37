"""Server-sent events as bytes: where one ends, a comment, an error event; pure.

Source: the HTML standard, "Server-sent events". Events end with an empty line.
"""

import re

from shared.errors import ApiError

COMMENT = b": keep-alive\n\n"
#: The last end of an event in a piece of a stream: an empty line, whatever ends its lines.
EVENT_END = re.compile(rb"(?s).*(?:\n\n|\r\n\r\n|\r\r)")


class WholeEvents:
    """Lets only whole events through, so that a comment or an error never lands inside one."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> bytes:
        """The whole events that are there now."""
        if data.endswith(b"\n\n") and not self._rest:
            return data
        data = self._rest + data
        found = EVENT_END.match(data)
        end = found.end() if found else 0
        self._rest = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is left when the stream has ended well."""
        rest, self._rest = self._rest, b""
        return rest


def error_event(error: ApiError) -> bytes:
    """The event that ends a stream which can't be completed; OpenAI's SDKs raise on it."""
    return b"data: " + error.body() + b"\n\n"
