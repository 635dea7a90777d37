"""Tells a stream of server-sent events that ended from one that just stopped; pure.

Chat and text completions end with `data: [DONE]` (OpenAI API reference, "Streaming"). Some upstreams leave it out, so
a last chunk that has a finish_reason counts too. A stream of the Responses API has an event that says it ended. Others
are whole when HTTP says so, which it can't where only the closed connection ends the body (RFC 9112 section 6.3).
"""

import re

from workers.response.tail_buffer import TailBuffer

#: Bytes at the end of a stream that are looked at.
TAIL_BYTES = 4096
FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
DONE = re.compile(rb"data:\s*\[DONE\]")
CHECKED_PATHS = ("/chat/completions", "/completions")
RESPONSES = "/responses"
RESPONDED = re.compile(rb"event:\s*(response\.(completed|failed|incomplete)|error)\b")


class StreamCompletion:
    """Keeps the end of a stream, and whether its last event has begun."""

    def __init__(self, path: str, *, delimited: bool = True) -> None:
        name = path.partition("?")[0]
        self._is_chat = name in CHECKED_PATHS
        self._is_response = name == RESPONSES and not delimited
        self._responded = False
        self._tail = TailBuffer(TAIL_BYTES)

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        if self._is_chat:
            self._tail.feed(data)
        elif self._is_response and not self._responded:
            self._responded = bool(RESPONDED.search(self._tail.bytes() + data))
            self._tail.feed(data)

    def is_complete(self) -> bool:
        """Whether the stream may be passed off as a whole answer."""
        if self._is_response:
            return self._responded
        tail = self._tail.bytes()
        return not self._is_chat or bool(DONE.search(tail) or FINISHED.search(tail))
