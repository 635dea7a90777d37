"""Detects errors in disguise at the beginning of a 2xx response. No I/O.

Some upstreams send a 200 and then an error object, a stream without an event, or an HTML page. None of it may reach the
caller, because before the first byte another credential may do better (I6). So the first bytes are held back until they
are known to be a response.
"""

from typing import Any

from shared.errors import FarmError
from shared.parsing import parse_json, parse_json_object
from shared.protocol.sse import DONE, EventBuffer, parse_events

#: Bytes after which a body is taken for a response, because errors are short.
MAX_SNIFFED_BYTES = 65_536
HTML_TYPES = ("text/html", "application/xhtml+xml")
#: Members that a JSON response of OpenAI's API may have, and an error has not.
RESPONSE_MEMBERS = ("choices", "data", "output", "object")


class InvalidResponse(FarmError):
    """Raised when a 2xx is an error in disguise; `body` is the upstream's error, b'' if it sent none."""

    def __init__(self, reason: str, body: bytes = b"") -> None:
        super().__init__(reason)
        self.body = body


class ErrorSniffer:
    """Buffers the first bytes; `feed` and `flush` return those that may pass."""

    def __init__(self, content_type: str) -> None:
        """Raises InvalidResponse for an HTML page."""
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type in HTML_TYPES:
            raise InvalidResponse("an HTML page")
        self._is_stream = media_type == "text/event-stream"
        self._is_json = media_type == "application/json"
        self._held = b""
        self._events = EventBuffer()
        #: The data of the stream's first event that has any; None before.
        self._first_data: bytes | None = None
        self.is_done = not self._is_stream and not self._is_json

    @property
    def has_held_body(self) -> bool:
        """Whether part of a JSON body is held back."""
        return self._is_json and bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now. Raises InvalidResponse."""
        self._held += data
        if self._is_stream:
            self._first_data = find_first_data(self._events.feed(data))
        if len(self._held) > MAX_SNIFFED_BYTES or self._first_data is not None:
            return self._release()
        return b""

    def flush(self) -> bytes:
        """Returns the rest at the end of the body. Raises InvalidResponse."""
        if self.is_done:
            return b""
        if self._is_stream:
            self._first_data = find_first_data(self._events.flush())
            if self._first_data is None:
                raise InvalidResponse("a stream without an event")
        return self._release()

    def _release(self) -> bytes:
        """Returns everything that was held back. Raises InvalidResponse."""
        if len(self._held) <= MAX_SNIFFED_BYTES:
            self._check()
        self.is_done = True
        held, self._held = self._held, b""
        return held

    def _check(self) -> None:
        if self._is_json:
            if parse_json(self._held) is None:
                raise InvalidResponse("invalid JSON")
            data = self._held
        else:
            data = (self._first_data or b"").strip()
            if data == DONE:
                raise InvalidResponse("a stream without an event")
        if is_error(parse_json_object(data)):
            raise InvalidResponse("an error object", data)


def find_first_data(events: bytes) -> bytes | None:
    """The data of the first event that has any; None without one."""
    return next((event.data for event in parse_events(events) if event.data is not None), None)


def is_error(payload: dict[str, Any]) -> bool:
    return payload.get("type") == "error" or (
        bool(payload.get("error")) and not any(member in payload for member in RESPONSE_MEMBERS)
    )
