"""Rewrites responses: hides a usage that only the farm asked for, and restores the name of a mapped model.

Everything else passes byte for byte (I10). A stream passes event by event, as it does in the front anyway.
"""

import json
import re

from shared.protocol.sse import EventBuffer, extract_data

#: Marks of a chunk with nothing but usage; only data that has both is parsed.
USAGE_KEY, EMPTY_CHOICES = b'"usage"', re.compile(rb'"choices"\s*:\s*\[\s*\]')


class ResponseRewriter:
    """Rewrites one response."""

    def __init__(self, *, is_stream: bool, hides_usage: bool, model: tuple[str, str] | None = None) -> None:
        """`model`: the name that the upstream uses, and the one that the caller used."""
        self._events = EventBuffer() if is_stream else None
        self._hides_usage = hides_usage and is_stream
        self._held: list[bytes] = []
        self._model_pattern = (
            re.compile(rb'(?<!\\)("model"\s*:\s*)' + re.escape(quote_json(model[0]))) if model else None
        )
        self._replacement = quote_json(model[1]) if model else b""

    @property
    def is_needed(self) -> bool:
        return self._hides_usage or self._model_pattern is not None

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now."""
        if self._events is None:
            self._held.append(data)
            return b""
        return self._rewrite(self._events.feed(data))

    def flush(self) -> bytes:
        """Returns the rest at the end of the body."""
        return self._rewrite(self._events.flush() if self._events else b"".join(self._held))

    def _rewrite(self, data: bytes) -> bytes:
        if self._hides_usage and USAGE_KEY in data and EMPTY_CHOICES.search(data):
            data = b"".join(event for event in split_events(data) if not is_usage_only(event))
        if self._model_pattern is None:
            return data
        return self._model_pattern.sub(lambda match: match.group(1) + self._replacement, data)


def split_events(data: bytes) -> list[bytes]:
    """Complete events, each with the empty line that ends it."""
    parts = re.split(rb"(\r\n\r\n|\n\n|\r\r)", data)
    return [b"".join(parts[start : start + 2]) for start in range(0, len(parts), 2)]


def is_usage_only(event: bytes) -> bool:
    """Whether the event is the chunk that `stream_options.include_usage` adds (OpenAI API reference, "Streaming")."""
    try:
        chunk = json.loads(extract_data(event))
    except (ValueError, RecursionError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)


def quote_json(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()
