"""Tells a stream of server-sent events that ended from one that just stopped; pure.

Chat and text completions end with `data: [DONE]` (OpenAI API reference, "Streaming"). Some upstreams leave it out, so a
last chunk that has a finish_reason counts too. Other streams (the Responses API) are whole when HTTP says so.
"""

import re

#: Bytes at the end of a stream that are looked at.
TAIL = 4096
FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
DONE = re.compile(rb"data:\s*\[DONE\]")
CHECKED_PATHS = ("/chat/completions", "/completions")


class StreamTail:
    """Keeps the end of a stream."""

    def __init__(self, path: str) -> None:
        self._checked = path.partition("?")[0] in CHECKED_PATHS
        self._tail = b""

    def add(self, data: bytes) -> None:
        """More of the stream."""
        if self._checked:
            self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]

    def is_whole(self) -> bool:
        """Whether the stream may be passed off as a whole answer."""
        return not self._checked or bool(DONE.search(self._tail) or FINISHED.search(self._tail))
