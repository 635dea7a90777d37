"""The opening of a 2xx answer: held back until it is sure that this is an answer and no error in disguise; pure.

Some upstreams say 200 and then send an error object, a stream without an event, or a page for people. Nothing of it
may reach the caller, because before the first byte another account may do better (I6).
"""

from typing import Any

from shared.errors import FarmError
from shared.parsing import parse_json, parse_json_object

#: Bytes after which an opening is no error, because errors are short.
MAX_SNIFFED_BYTES = 65_536
HTML_TYPES = ("text/html", "application/xhtml+xml")
#: What a JSON answer of OpenAI's API has, and an error has not.
RESPONSE_MEMBERS = ("choices", "data", "output", "object")


class InvalidResponse(FarmError):
    """Raised when a 2xx is no answer; `body` is the upstream's error if it sent one."""

    def __init__(self, reason: str, body: bytes = b"") -> None:
        super().__init__(reason)
        self.body = body


class ErrorSniffer:
    """Holds the first bytes back; `add` and `end` return what may pass."""

    def __init__(self, content_type: str) -> None:
        """Raises NoAnswer for a page."""
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type in HTML_TYPES:
            raise InvalidResponse("a page for people")
        self._is_stream = media_type == "text/event-stream"
        self._is_json = media_type == "application/json"
        self._held = b""
        self.is_done = not self._is_stream and not self._is_json

    @property
    def has_held_body(self) -> bool:
        """Whether bytes of a body that is no stream have come: from then on a cut is the caller's to know of."""
        return self._is_json and bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """More of the body; returns what may pass now. Raises NoAnswer."""
        self._held += data
        if len(self._held) > MAX_SNIFFED_BYTES or (self._is_stream and find_first_event_data(self._held) is not None):
            return self._release()
        return b""

    def flush(self) -> bytes:
        """The body is whole; returns what may pass. Raises NoAnswer."""
        if self.is_done:
            return b""
        if self._is_stream and find_first_event_data(self._held + b"\n\n") is None:
            raise InvalidResponse("a stream without an event")
        return self._release()

    def _release(self) -> bytes:
        """Everything that was held. Raises NoAnswer."""
        if len(self._held) <= MAX_SNIFFED_BYTES:
            self._check()
        self.is_done = True
        held, self._held = self._held, b""
        return held

    def _check(self) -> None:
        if self._is_json:
            if parse_json(self._held) is None:
                raise InvalidResponse("no JSON")
            data = self._held
        else:
            data = find_first_event_data(self._held + b"\n\n") or b""
            if data == b"[DONE]":
                raise InvalidResponse("a stream without an event")
        if is_error(parse_json_object(data)):
            raise InvalidResponse("an error object", data)


def find_first_event_data(data: bytes) -> bytes | None:
    """The data of the first event that has some, comments left out; None when it is not whole yet."""
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *events, _ = text.split(b"\n\n")
    for event in events:
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            return b"\n".join(lines)
    return None


def is_error(payload: dict[str, Any]) -> bool:
    """Whether an object is an error in place of an answer."""
    return payload.get("type") == "error" or (
        bool(payload.get("error")) and not any(member in payload for member in RESPONSE_MEMBERS)
    )
