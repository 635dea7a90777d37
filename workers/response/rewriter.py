"""What is changed in an answer on its way: a usage that the farm asked for is hidden, a mapped model's name restored.

Everything else passes byte for byte (I10). A stream is let through event by event, as the front does anyway.
"""

import json
import re

from shared.protocol.sse import EventBuffer, extract_data

#: What a chunk with nothing but usage has: it is read only then.
USAGE_KEY, EMPTY_CHOICES = b'"usage"', re.compile(rb'"choices"\s*:\s*\[\s*\]')


class ResponseRewriter:
    """Changes one answer."""

    def __init__(self, *, is_stream: bool, hides_usage: bool, model: tuple[str, str] | None = None) -> None:
        """`model`: the name that the upstream knows, and the one that the caller asked for."""
        self._events = EventBuffer() if is_stream else None
        self._hides_usage = hides_usage and is_stream
        self._held: list[bytes] = []
        self._model_pattern = (
            re.compile(rb'(?<!\\)("model"\s*:\s*)' + re.escape(quote_json(model[0]))) if model else None
        )
        self._replacement = quote_json(model[1]) if model else b""

    @property
    def is_needed(self) -> bool:
        """Whether anything would be changed."""
        return self._hides_usage or self._model_pattern is not None

    def feed(self, data: bytes) -> bytes:
        """More of the answer; returns what may pass now."""
        if self._events is None:
            self._held.append(data)
            return b""
        return self._rewrite(self._events.feed(data))

    def flush(self) -> bytes:
        """The answer is whole; returns what is left of it."""
        return self._rewrite(self._events.flush() if self._events else b"".join(self._held))

    def _rewrite(self, data: bytes) -> bytes:
        if self._hides_usage and USAGE_KEY in data and EMPTY_CHOICES.search(data):
            data = b"".join(event for event in split_events(data) if not is_usage_only(event))
        if self._model_pattern is None:
            return data
        return self._model_pattern.sub(lambda match: match.group(1) + self._replacement, data)


def split_events(data: bytes) -> list[bytes]:
    """Whole events, each with the empty line that ends it."""
    parts = re.split(rb"(\r\n\r\n|\n\n|\r\r)", data)
    return [b"".join(parts[start : start + 2]) for start in range(0, len(parts), 2)]


def is_usage_only(event: bytes) -> bool:
    """Whether an event is the chunk that `stream_options.include_usage` adds (OpenAI API reference, "Streaming")."""
    try:
        chunk = json.loads(extract_data(event))
    except (ValueError, RecursionError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)


def quote_json(name: str) -> bytes:
    """A name as JSON text."""
    return json.dumps(name, ensure_ascii=False).encode()
