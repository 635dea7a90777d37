"""Tells complete streams of server-sent events from truncated ones. No I/O.

Chat and text completions end with `data: [DONE]` (OpenAI API reference, "Streaming"). Some upstreams leave it out, so
a `finish_reason` near the end counts too. A stream of the Responses API ends with an event of its own, which is looked
for when HTTP can't delimit the body (only the closed connection ends it, RFC 9112 section 6.3). All other streams are
complete when HTTP says so.

Whole lines are compared, as the grammar of server-sent events has it: a model that explains such streams writes the
same words, but JSON has no line breaks and no bare quotes within a text.
"""

import re

from workers.response.tail_buffer import TailBuffer

#: Bytes at the end of a stream that are searched.
TAIL_BYTES = 4096
FINISH_REASON = re.compile(rb'"finish_reason"\s*:\s*"')
DONE_EVENT = re.compile(rb"(?:\A|[\r\n])data:[ \t]*\[DONE\][ \t]*(?=[\r\n]|\Z)")
COMPLETION_PATHS = ("/chat/completions", "/completions")
RESPONSES_PATH = "/responses"
RESPONSE_END_EVENT = re.compile(
    rb"(?:\A|[\r\n])event:[ \t]*(?:response\.(?:completed|failed|incomplete)|error)[ \t]*(?=[\r\n])"
)


class StreamCompletion:
    """Watches a stream for its last event."""

    def __init__(self, path: str, *, delimited: bool = True) -> None:
        endpoint = path.partition("?")[0]
        self._is_completion = endpoint in COMPLETION_PATHS
        self._is_response = endpoint == RESPONSES_PATH and not delimited
        self._has_end_event = False
        self._tail = TailBuffer(TAIL_BYTES)

    def feed(self, data: bytes) -> None:
        if self._is_completion:
            self._tail.feed(data)
        elif self._is_response and not self._has_end_event:
            self._has_end_event = bool(RESPONSE_END_EVENT.search(self._tail.bytes() + data))
            self._tail.feed(data)

    def is_complete(self) -> bool:
        if self._is_response:
            return self._has_end_event
        tail = self._tail.bytes()
        return not self._is_completion or bool(DONE_EVENT.search(tail) or FINISH_REASON.search(tail))
