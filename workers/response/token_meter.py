"""How many tokens an answer has used: as the upstream reports it, else counted here; it keeps no text for long.

Chat and text completions say so in `usage` with `prompt_tokens` and `completion_tokens`, the Responses API with
`input_tokens` and `output_tokens`; embeddings have no tokens of an answer (OpenAI API reference). In a stream it is in
the last chunk, when `stream_options.include_usage` asked for it.
"""

import json
import re
from dataclasses import dataclass

from shared.api_keys.limits import MOST_TOKENS
from shared.protocol.sse import WholeEvents, data_of
from workers.response import tokenizer
from workers.response.tail_buffer import Tail

#: Bytes looked at for a report, at the beginning and at the end of an answer.
KEPT = 4096
#: Bytes of an answer that wait to be counted, should nothing be reported: a long stream is counted as it goes by.
UNCOUNTED = 65_536
#: Bytes of a JSON that is read to count its tokens; larger ones hold no texts.
LARGEST = 4 * 1024 * 1024
#: A member of an object; inside of a text the quotes would be escaped.
USAGE = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
DECODER = json.JSONDecoder()
#: Members that hold what was asked, and what was answered.
ASKED = frozenset({"content", "text", "prompt", "input", "instructions", "arguments"})
ANSWERED = frozenset({"content", "text", "delta", "reasoning_content", "refusal", "arguments"})


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


class Meter:
    """Watches an answer go by."""

    def __init__(self, *, is_stream: bool) -> None:
        self._events = WholeEvents() if is_stream else None
        self._head = b""
        self._tail = Tail(KEPT)
        self._waiting: list[bytes] = []
        self._size = 0
        self._counted = 0

    def add(self, data: bytes) -> None:
        """More of the answer."""
        if len(self._head) < KEPT:
            self._head = (self._head + data)[:KEPT]
        self._tail.add(data)
        self._size += len(data)
        if self._size <= LARGEST or self._events:
            self._waiting.append(data)
        elif self._waiting:
            self._waiting.clear()
        if self._events and self._size > UNCOUNTED:
            self._size = 0
            self._counted += self._count()

    def usage(self, question: bytes) -> Usage:
        """What the answer says, else a count of what was asked and answered."""
        found = reported(self._tail.bytes()) or reported(self._head)
        if found:
            return found
        asked = tokenizer.count("\n".join(tokenizer.words(read_json(question), ASKED)))
        return Usage(asked, self._counted + self._count(), estimated=True)

    def _count(self) -> int:
        """Tokens of what waits."""
        data = b"".join(self._waiting)
        self._waiting.clear()
        if not self._events:
            return tokenizer.count("\n".join(tokenizer.words(read_json(data), ANSWERED)))
        whole = self._events.add(data).replace(b"\r\n", b"\n")
        texts = [tokenizer.words(read_json(data_of(event)), ANSWERED) for event in whole.split(b"\n\n")]
        return tokenizer.count("".join(part for text in texts for part in text))


def reported(part: bytes) -> Usage | None:
    """The last usage in a part of an answer."""
    for match in reversed(list(USAGE.finditer(part))):
        try:
            found, _ = DECODER.raw_decode(part[match.end() :].decode(errors="replace"))
            return read(found)
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    return None


def read(found: dict[str, object]) -> Usage:
    """A usage object. Raises ValueError, TypeError when its numbers are none."""
    prompt = whole(found.get("prompt_tokens", found.get("input_tokens")))
    completion = whole(found.get("completion_tokens", found.get("output_tokens")))
    return Usage(prompt, completion)


def whole(number: object) -> int:
    """A count of tokens, 0 when it is not given."""
    if number is None:
        return 0
    if type(number) is not int or not 0 <= number <= MOST_TOKENS:
        raise ValueError("not a count")
    return number


def read_json(data: bytes) -> object:
    """A JSON value; None for what is none, or is too large to hold texts."""
    try:
        return json.loads(data) if len(data) <= LARGEST else None
    except (ValueError, RecursionError):
        return None
