"""Judges the beginning of a 2xx response: what it is, and whether it is an error in disguise. No I/O.

Some upstreams send a 200 and then an error object, a stream without an event, a page, or nothing. None of it may reach
the caller, because before the first byte another credential may do better (I6). So the first bytes are held back until
they are known to be a response, and JSON until it is complete. What counts are the bytes, and what was asked for:
labels are often wrong or missing.
"""

import re
from enum import Enum

from shared.errors import FarmError
from shared.parsing import parse_json
from shared.protocol.sse import BYTE_ORDER_MARK, EventBuffer, has_line_end
from shared.response.endpoints import (
    COMPLETION_PATHS,
    FREE_PATHS,
    RESPONSES_PATH,
    SPEECH_PATH,
    InvalidResponse,
    describe_invalid,
    is_error_event,
    is_response_event,
)
from shared.response.error_shapes import clean_message, find_title, is_page, is_text
from shared.response.events import iter_payloads

#: Bytes after which a body is taken for a response, because errors are short.
MAX_SNIFFED_BYTES = 65_536
#: Bytes of JSON that are held back until it is complete, so that one that breaks off can be retried.
MAX_HELD_BYTES = 16 * 1024 * 1024
#: Bytes after which a body is judged that is neither JSON nor a stream; and of its text in an error message.
MAX_STRAY_BYTES, MAX_STRAY_TEXT = 4096, 300
#: How often the incomplete event at the beginning of a stream is examined at most.
MAX_EXAMINATIONS = 16
#: Bytes by which a page can be told from text.
PAGE_PREFIX_BYTES = 16
CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
EVENTS_TYPE, JSON_TYPE = "text/event-stream", "application/json"
#: How server-sent events begin: with a field or a comment.
EVENT_START = re.compile(rb"(?:data|event|id|retry)[ \t]*[:\r\n]|:")
JSON_START = re.compile(rb'[{\["]|-?\d|(?:true|false|null)\b')


class Kind(Enum):
    """What a response is."""

    EVENTS = "events"
    JSON = "json"
    #: Audio or text.
    OTHER = "other"


class HeldBytes:
    """The bytes of JSON that all sniffers of a process hold back."""

    #: Beyond so many, a response passes before it is complete.
    MAX_BYTES = 64 * 1024 * 1024

    def __init__(self) -> None:
        self.total = 0


HELD_BYTES = HeldBytes()


class IncompleteResponse(FarmError):
    """Raised when a response breaks off although HTTP does not say so: in the middle of JSON, or of a stream."""


class ErrorSniffer:
    """Buffers the first bytes of one response; `feed` and `flush` return those that may pass."""

    def __init__(
        self, path: str, content_type: str = "", *, wants_stream: bool = False, delimited: bool = True
    ) -> None:
        """`path`: the endpoint. `wants_stream`: whether a stream was asked for.

        `delimited`: whether HTTP marks the end of the body, so that invalid JSON is no sign of truncation.
        """
        self._path = path
        self._content_type = content_type
        self._media_type = content_type.partition(";")[0].strip().lower()
        self._wants_stream = wants_stream
        self._delimited = delimited
        #: Whether the body may be text or bytes of any kind.
        self._is_free = path in FREE_PATHS or (path.startswith("/images/") and self._media_type.startswith("image/"))
        self._parts: list[bytes] = []
        self._size = 0
        #: Bytes that are counted in HELD_BYTES.
        self._accounted = 0
        self._events = EventBuffer()
        self._examinations = 0
        #: What the response is; None until it is known.
        self.kind: Kind | None = None
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now. Raises InvalidResponse."""
        self._parts.append(data)
        self._size += len(data)
        if self.kind is None:
            data = self._join()
            self.kind = self._find_kind(data)
            if not self._is_free and not data.strip():
                # Some upstreams send empty lines until they have a response.
                self._parts, self._size = [], 0
        return self._release() if self._may_pass(data) else b""

    def _may_pass(self, data: bytes) -> bool:
        if self.kind is Kind.EVENTS:
            events = self._events.feed(data)
            has_response = self._has_response_event(events, has_new_line=has_line_end(data))
            return has_response or self._size > MAX_SNIFFED_BYTES
        if self.kind is Kind.JSON:
            self._account(self._size)
            limit = MAX_SNIFFED_BYTES if self._is_guess else MAX_HELD_BYTES
            is_too_long = self._size > limit or (
                self._size > MAX_SNIFFED_BYTES and HELD_BYTES.total > HELD_BYTES.MAX_BYTES
            )
            return self._delimited and is_too_long
        if self.kind is None and self._size > MAX_STRAY_BYTES and self._is_free:
            self.kind = Kind.OTHER
        if self.kind is None and self._size > MAX_STRAY_BYTES:
            raise describe_stray(self._join())
        # Only audio is played while it comes; a transcript that breaks off is tried on another credential.
        return self.kind is Kind.OTHER and (self._path == SPEECH_PATH or self._size > MAX_SNIFFED_BYTES)

    def flush(self) -> bytes:
        """Returns the rest at the end of the body. Raises InvalidResponse, IncompleteResponse."""
        if self.is_done:
            return b""
        held = self._join()
        if not held.removeprefix(BYTE_ORDER_MARK).strip():
            raise InvalidResponse("a stream without an event" if self._is_stream_due else "an empty body")
        if self.kind is None:
            self.kind = self._find_kind(held + b"\n" * PAGE_PREFIX_BYTES)
            self._events.feed(held)
        if self.kind is None:
            raise describe_stray(held)
        if self.kind is Kind.EVENTS and not self._has_response_event(self._events.flush()):
            raise InvalidResponse("a stream without an event")
        if self.kind is Kind.JSON:
            self._check_json(held)
        return self._release()

    @property
    def _is_stream_due(self) -> bool:
        return self._media_type == EVENTS_TYPE or (self._wants_stream and not self._is_free)

    @property
    def _is_guess(self) -> bool:
        """Whether JSON is only what a body looks like that may be text or audio."""
        return self._is_free and self._media_type != JSON_TYPE

    def _join(self) -> bytes:
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def _account(self, held: int) -> None:
        HELD_BYTES.total += held - self._accounted
        self._accounted = held

    def __del__(self) -> None:
        """The attempt may have ended in any way."""
        self._account(0)

    def _release(self) -> bytes:
        """Returns everything that was held back; JSON without a byte order mark (RFC 8259 section 8.1)."""
        self.is_done = True
        held = self._join()
        self._parts = []
        self._account(0)
        return held.removeprefix(BYTE_ORDER_MARK) if self.kind is Kind.JSON else held

    def _find_kind(self, held: bytes) -> Kind | None:
        """What the body is by its first bytes; None while they don't tell. Raises InvalidResponse for a page."""
        start = held.removeprefix(BYTE_ORDER_MARK).lstrip()
        if not start or BYTE_ORDER_MARK.startswith(held):
            return None
        if is_page(start):
            raise describe_page(held)
        if self._is_json_start(start):
            return Kind.JSON
        if self._media_type == EVENTS_TYPE or not self._is_free or (self._wants_stream and self._path != SPEECH_PATH):
            if EVENT_START.match(start):
                return Kind.EVENTS
            # A field that the standard doesn't know is ignored, so anything may stand before the first event.
            return Kind.EVENTS if self._media_type == EVENTS_TYPE and has_line_end(start) else None
        may_be_page = start.startswith(b"<") and len(start) < PAGE_PREFIX_BYTES
        return None if may_be_page else Kind.OTHER

    def _is_json_start(self, start: bytes) -> bool:
        if self._is_free and self._media_type != JSON_TYPE:
            return start[:1] in (b"{", b"[")
        return bool(JSON_START.match(start))

    def _has_response_event(self, events: bytes, *, has_new_line: bool = False) -> bool:
        """Whether an event of a response has arrived. Raises InvalidResponse when an error has come before it.

        A line of an event that is not complete may be part of a response, but is no error yet: the type may follow.
        """
        for event, payload in iter_payloads(events):
            if is_response_event(self._path, event, payload):
                return True
            if is_error_event(event, payload):
                raise InvalidResponse("an error object", event.data or b"")
        if has_new_line and self._path in (*COMPLETION_PATHS, RESPONSES_PATH) and self._examinations < MAX_EXAMINATIONS:
            self._examinations += 1
            return self._has_response_line(self._events.rest())
        return False

    def _has_response_line(self, event: bytes) -> bool:
        lines = event[: 1 + max(event.rfind(b"\n"), event.rfind(b"\r"))]
        for part, payload in iter_payloads(lines):
            if is_response_event(self._path, part, payload):
                return True
            if is_error_event(part, payload):
                return False
        return False

    def _check_json(self, held: bytes) -> None:
        """Raises InvalidResponse, IncompleteResponse. Long bodies are no errors; only their end is checked."""
        if self._delimited and self._size > MAX_SNIFFED_BYTES:
            return
        payload = parse_json(held)
        if payload is None and (decoded := decode_charset(held, self._content_type)):
            self._parts, payload = [decoded], parse_json(decoded)
        if payload is None:
            if self._is_guess:
                self.kind = Kind.OTHER
                return
            if not self._delimited:
                raise IncompleteResponse("incomplete JSON")
            raise InvalidResponse("invalid JSON")
        if reason := describe_invalid(self._path, payload):
            raise InvalidResponse(reason, self._join().removeprefix(BYTE_ORDER_MARK).strip())


def decode_charset(body: bytes, content_type: str) -> bytes:
    """A text of another character set in UTF-8, which JSON has to be in (RFC 8259 section 8.1); b'' if it can't be."""
    match = CHARSET.search(content_type)
    try:
        return body.decode(match[1]).encode() if match else b""
    except (LookupError, UnicodeError):
        return b""


def describe_page(page: bytes) -> InvalidResponse:
    title = find_title(page)
    return InvalidResponse(f"a page titled “{title}”" if title else "an HTML page")


def describe_stray(body: bytes) -> InvalidResponse:
    """For a body that is neither JSON nor a stream."""
    if is_page(body):
        return describe_page(body)
    text = clean_message(body.decode(errors="replace"))[:MAX_STRAY_TEXT] if is_text(body) else ""
    return InvalidResponse(f"text in place of JSON: {text}" if text else "bytes in place of JSON")
