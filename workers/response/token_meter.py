"""Meters the tokens of a response: as the upstream reports them, else by counting."""

import json

from shared.protocol.sse import parse_events
from shared.response.usage import ReportedUsage, Usage, may_report_usage
from workers.response import tokenizer
from workers.response.tail_buffer import TailBuffer

#: Bytes of a long JSON body that are searched for a usage, at its beginning and at its end.
SEARCHED_BYTES = 4096
#: Bytes of a stream that are buffered until they are counted, in case the upstream reports no usage.
MAX_UNCOUNTED_BYTES = 65_536
#: Bytes of a JSON body that is parsed to count its tokens; larger ones hold images or audio, not text.
MAX_JSON_BYTES = 4 * 1024 * 1024
#: Members that hold the text of the request, and of the response.
PROMPT_MEMBERS = frozenset({"content", "text", "prompt", "input", "instructions", "arguments"})
COMPLETION_MEMBERS = frozenset({"content", "text", "delta", "reasoning_content", "refusal", "arguments"})


class TokenMeter:
    """Watches one response pass."""

    def __init__(self, *, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._reported = ReportedUsage()
        #: The ends of a JSON body that is too long to be buffered.
        self._head = b""
        self._tail: TailBuffer | None = None
        self._uncounted: list[bytes] = []
        self._size = 0
        self._counted_tokens = 0

    def feed(self, data: bytes) -> None:
        """Takes in a part of a JSON body, or whole events of a stream."""
        self._size += len(data)
        if self._is_stream:
            self._uncounted.append(data)
            if self._size > MAX_UNCOUNTED_BYTES:
                self._size = 0
                self._counted_tokens += self._count_uncounted()
            return
        if self._tail:
            self._tail.feed(data)
            return
        self._uncounted.append(data)
        if self._size > MAX_JSON_BYTES:
            body = b"".join(self._uncounted)
            self._uncounted.clear()
            self._head, self._tail = body[:SEARCHED_BYTES], TailBuffer(SEARCHED_BYTES)
            self._tail.feed(body[-SEARCHED_BYTES:])

    def read_usage(self, data: bytes) -> None:
        """Takes in the data of an event that may report the usage."""
        self._reported.read(data.decode(errors="replace"))

    def usage(self, request_body: bytes) -> Usage:
        """The usage that the response reports, else a count of both bodies."""
        if not self._is_stream:
            self._read_body()
        reported = self._reported.usage()
        if reported:
            return reported
        prompt_tokens = tokenizer.count_tokens(
            "\n".join(tokenizer.iter_texts(parse_bounded_json(request_body), PROMPT_MEMBERS))
        )
        return Usage(prompt_tokens, self._counted_tokens + self._count_uncounted(), estimated=True)

    def _read_body(self) -> None:
        """Looks for the usage of a JSON body."""
        for part in (self._head, self._tail.bytes()) if self._tail else (b"".join(self._uncounted),):
            if may_report_usage(part):
                self.read_usage(part)

    def _count_uncounted(self) -> int:
        """Tokens of the buffered bytes, which are dropped."""
        data = b"".join(self._uncounted)
        self._uncounted.clear()
        if not self._is_stream:
            return tokenizer.count_tokens("\n".join(tokenizer.iter_texts(parse_bounded_json(data), COMPLETION_MEMBERS)))
        texts = [
            tokenizer.iter_texts(parse_bounded_json(event.data), COMPLETION_MEMBERS)
            for event in parse_events(data)
            if event.data
        ]
        return tokenizer.count_tokens("".join(part for text in texts for part in text))


def parse_bounded_json(data: bytes) -> object:
    """A JSON value; None when the data is invalid or longer than MAX_JSON_BYTES."""
    try:
        return json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        return None
