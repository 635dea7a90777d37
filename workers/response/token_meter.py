"""Meters the tokens of a response: as the upstream reports them, else by counting.

Chat and text completions report `prompt_tokens` and `completion_tokens` in `usage`, the Responses API `input_tokens`
and `output_tokens`; embeddings have no completion tokens (OpenAI API reference). A stream has the usage in its last
chunk, if `stream_options.include_usage` asked for it.
"""

import json
import re
from dataclasses import dataclass

from shared.api_keys.limits import MAX_TOKENS_PER_REQUEST
from shared.protocol.sse import EventBuffer, extract_data
from workers.response import tokenizer
from workers.response.tail_buffer import TailBuffer

#: Bytes searched for a usage, at the beginning and at the end of a response.
SEARCHED_BYTES = 4096
#: Bytes of a stream that are buffered until they are counted, in case the upstream reports no usage.
MAX_UNCOUNTED_BYTES = 65_536
#: Bytes of a JSON body that is parsed to count its tokens; larger ones hold images or audio, not text.
MAX_JSON_BYTES = 4 * 1024 * 1024
#: The member of an object; inside a string its quotes would be escaped.
USAGE_KEY = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
DECODER = json.JSONDecoder()
#: Members that hold the text of the request, and of the response.
PROMPT_MEMBERS = frozenset({"content", "text", "prompt", "input", "instructions", "arguments"})
COMPLETION_MEMBERS = frozenset({"content", "text", "delta", "reasoning_content", "refusal", "arguments"})


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int = 0
    completion: int = 0
    #: Whether the upstream reported none, so that the farm counted them.
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class TokenMeter:
    """Watches one response pass."""

    def __init__(self, *, is_stream: bool) -> None:
        self._events = EventBuffer() if is_stream else None
        self._head = b""
        self._tail = TailBuffer(SEARCHED_BYTES)
        self._uncounted: list[bytes] = []
        self._size = 0
        self._counted_tokens = 0

    def feed(self, data: bytes) -> None:
        if len(self._head) < SEARCHED_BYTES:
            self._head = (self._head + data)[:SEARCHED_BYTES]
        self._tail.feed(data)
        self._size += len(data)
        if self._size <= MAX_JSON_BYTES or self._events:
            self._uncounted.append(data)
        elif self._uncounted:
            self._uncounted.clear()
        if self._events and self._size > MAX_UNCOUNTED_BYTES:
            self._size = 0
            self._counted_tokens += self._count_uncounted()

    def usage(self, request_body: bytes) -> Usage:
        """The usage that the response reports, else a count of both bodies."""
        reported = find_reported_usage(self._tail.bytes()) or find_reported_usage(self._head)
        if reported:
            return reported
        prompt_tokens = tokenizer.count_tokens(
            "\n".join(tokenizer.iter_texts(parse_bounded_json(request_body), PROMPT_MEMBERS))
        )
        return Usage(prompt_tokens, self._counted_tokens + self._count_uncounted(), estimated=True)

    def _count_uncounted(self) -> int:
        """Tokens of the buffered bytes, which are dropped."""
        data = b"".join(self._uncounted)
        self._uncounted.clear()
        if not self._events:
            return tokenizer.count_tokens("\n".join(tokenizer.iter_texts(parse_bounded_json(data), COMPLETION_MEMBERS)))
        events = self._events.feed(data).replace(b"\r\n", b"\n")
        texts = [
            tokenizer.iter_texts(parse_bounded_json(extract_data(event)), COMPLETION_MEMBERS)
            for event in events.split(b"\n\n")
        ]
        return tokenizer.count_tokens("".join(part for text in texts for part in text))


def find_reported_usage(data: bytes) -> Usage | None:
    """The last valid usage in a part of a response; None when there is none."""
    for match in reversed(list(USAGE_KEY.finditer(data))):
        try:
            usage, _ = DECODER.raw_decode(data[match.end() :].decode(errors="replace"))
            return parse_usage(usage)
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    return None


def parse_usage(usage: dict[str, object]) -> Usage:
    """Parses a usage object. Raises ValueError when a count is invalid."""
    prompt = parse_count(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = parse_count(usage.get("completion_tokens", usage.get("output_tokens")))
    return Usage(prompt, completion)


def parse_count(count: object) -> int:
    """A count of tokens; 0 for None. Raises ValueError."""
    if count is None:
        return 0
    if type(count) is not int or not 0 <= count <= MAX_TOKENS_PER_REQUEST:
        raise ValueError("not a count")
    return count


def parse_bounded_json(data: bytes) -> object:
    """A JSON value; None when the data is invalid or longer than MAX_JSON_BYTES."""
    try:
        return json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        return None
