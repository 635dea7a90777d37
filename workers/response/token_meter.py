"""How many tokens an answer has used: as the upstream reports it, else counted here; it keeps no text for long.

Chat and text completions say so in `usage` with `prompt_tokens` and `completion_tokens`, the Responses API with
`input_tokens` and `output_tokens`; embeddings have no tokens of an answer (OpenAI API reference). In a stream it is in
the last chunk, when `stream_options.include_usage` asked for it.
"""

import json
import re
from dataclasses import dataclass

from shared.api_keys.limits import MAX_TOKENS_PER_REQUEST
from shared.protocol.sse import EventBuffer, extract_data
from workers.response import tokenizer
from workers.response.tail_buffer import TailBuffer

#: Bytes looked at for a report, at the beginning and at the end of an answer.
SEARCHED_BYTES = 4096
#: Bytes of an answer that wait to be counted, should nothing be reported: a long stream is counted as it goes by.
MAX_UNCOUNTED_BYTES = 65_536
#: Bytes of a JSON that is read to count its tokens; larger ones hold no texts.
MAX_JSON_BYTES = 4 * 1024 * 1024
#: A member of an object; inside of a text the quotes would be escaped.
USAGE_KEY = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
DECODER = json.JSONDecoder()
#: Members that hold what was asked, and what was answered.
PROMPT_MEMBERS = frozenset({"content", "text", "prompt", "input", "instructions", "arguments"})
COMPLETION_MEMBERS = frozenset({"content", "text", "delta", "reasoning_content", "refusal", "arguments"})


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int = 0
    completion: int = 0
    #: Whether the upstream reported none, so that they were counted here.
    estimated: bool = False

    @property
    def total(self) -> int:
        """Of question and answer."""
        return self.prompt + self.completion


class TokenMeter:
    """Watches an answer go by."""

    def __init__(self, *, is_stream: bool) -> None:
        self._events = EventBuffer() if is_stream else None
        self._head = b""
        self._tail = TailBuffer(SEARCHED_BYTES)
        self._uncounted: list[bytes] = []
        self._size = 0
        self._counted_tokens = 0

    def feed(self, data: bytes) -> None:
        """More of the answer."""
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
        """What the answer says, else a count of what was asked and answered."""
        reported = find_reported_usage(self._tail.bytes()) or find_reported_usage(self._head)
        if reported:
            return reported
        prompt_tokens = tokenizer.count_tokens(
            "\n".join(tokenizer.iter_texts(parse_bounded_json(request_body), PROMPT_MEMBERS))
        )
        return Usage(prompt_tokens, self._counted_tokens + self._count_uncounted(), estimated=True)

    def _count_uncounted(self) -> int:
        """Tokens of what waits."""
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
    """The last usage in a part of an answer."""
    for match in reversed(list(USAGE_KEY.finditer(data))):
        try:
            usage, _ = DECODER.raw_decode(data[match.end() :].decode(errors="replace"))
            return parse_usage(usage)
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    return None


def parse_usage(usage: dict[str, object]) -> Usage:
    """A usage object. Raises ValueError, TypeError when its numbers are none."""
    prompt = parse_count(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = parse_count(usage.get("completion_tokens", usage.get("output_tokens")))
    return Usage(prompt, completion)


def parse_count(count: object) -> int:
    """A count of tokens, 0 when it is not given."""
    if count is None:
        return 0
    if type(count) is not int or not 0 <= count <= MAX_TOKENS_PER_REQUEST:
        raise ValueError("not a count")
    return count


def parse_bounded_json(data: bytes) -> object:
    """A JSON value; None for what is none, or is too large to hold texts."""
    try:
        return json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        return None
