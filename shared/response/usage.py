"""Finds the token usage in a response, in the forms that upstreams have, and takes it out again. No I/O.

OpenAI's API has `usage` with `prompt_tokens` and `completion_tokens`, or `input_tokens` and `output_tokens`. Others
put the same object elsewhere (`x_groq.usage`, `choices[0].usage`, `response.usage`), name its members after their own
API (`promptTokenCount`), write numbers as text or as floats, or have Ollama's counts at the top level. So members are
found by their names, at any depth: within a JSON string the quotes of a name would be escaped.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shared.api_keys.limits import MAX_TOKENS_PER_REQUEST

NAME = re.compile(
    r'(?<!\\)"(?P<name>usage|usage_metadata|usageMetadata|token_usage|tokenUsage|(?P<count>prompt_eval_count|eval_count))"'
    r"\s*:\s*"
)
PROMPT, COMPLETION, TOTAL = "prompt", "completion", "total"
#: What counts are called, in OpenAI's API first.
COUNTS = {
    "prompt_tokens": PROMPT,
    "completion_tokens": COMPLETION,
    "total_tokens": TOTAL,
    "input_tokens": PROMPT,
    "output_tokens": COMPLETION,
    "promptTokens": PROMPT,
    "completionTokens": COMPLETION,
    "totalTokens": TOTAL,
    "inputTokens": PROMPT,
    "outputTokens": COMPLETION,
    "prompt_token_count": PROMPT,
    "candidates_token_count": COMPLETION,
    "completion_token_count": COMPLETION,
    "total_token_count": TOTAL,
    "input_token_count": PROMPT,
    "output_token_count": COMPLETION,
    "promptTokenCount": PROMPT,
    "candidatesTokenCount": COMPLETION,
    "totalTokenCount": TOTAL,
    "inputTokenCount": PROMPT,
    "outputTokenCount": COMPLETION,
    "prompt_eval_count": PROMPT,
    "eval_count": COMPLETION,
}
DECODER = json.JSONDecoder()


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


class Member(NamedTuple):
    """A member of a JSON object that is, or may be, a usage."""

    #: Where its name begins and its value ends.
    start: int
    end: int
    #: The counts as an object, also of one at the top level; None for null and for what is no object.
    counts: dict[str, object] | None
    is_null: bool


class ReportedUsage:
    """The usage that a response has reported so far: a later one counts, as far as it goes."""

    def __init__(self) -> None:
        self._prompt: int | None = None
        self._completion: int | None = None

    def read(self, text: str) -> None:
        """Takes in a part of a response, JSON or what is left of it."""
        for member in find_members(text):
            try:
                prompt, completion = parse_counts(member.counts or {})
            except ValueError:
                continue
            if prompt or completion:
                self._prompt = self._prompt if prompt is None else prompt
                self._completion = self._completion if completion is None else completion

    def usage(self) -> Usage | None:
        """None when the response has reported none, or only zeros, which no response can cost."""
        if self._prompt is None and self._completion is None:
            return None
        return Usage(self._prompt or 0, self._completion or 0)


def may_report_usage(data: bytes) -> bool:
    """Whether the bytes may hold a usage; quick, because nearly all of a stream's don't."""
    return b"sage" in data or b"eval_count" in data


def find_members(text: str) -> list[Member]:
    """All members that may be a usage, outermost first; those behind invalid JSON are left out."""
    members, position = [], 0
    while match := NAME.search(text, position):
        try:
            value, position = DECODER.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            break
        counts = {match["name"]: value} if match["count"] else value if isinstance(value, dict) else None
        members.append(Member(match.start(), position, counts, value is None))
    return members


def parse_counts(usage: Mapping[str, object]) -> tuple[int | None, int | None]:
    """Tokens of prompt and completion, each None where the object does not tell. Raises ValueError."""
    counts: dict[str, int] = {}
    for name, value in usage.items():
        kind = COUNTS.get(name)
        if kind and value is not None and kind not in counts:
            counts[kind] = parse_count(value)
    prompt, completion, total = counts.get(PROMPT), counts.get(COMPLETION), counts.get(TOTAL)
    if total is not None and prompt is None:
        prompt = max(0, total - (completion or 0))
    elif total is not None and completion is None and prompt is not None:
        completion = max(0, total - prompt)
    return prompt, completion


def parse_count(count: object) -> int:
    """A count of tokens, which may be written as text or as a float. Raises ValueError."""
    if isinstance(count, bool) or not isinstance(count, int | float | str):
        raise ValueError("not a count")
    number = count if isinstance(count, int) else float(count)
    # NaN compares as false.
    if not 0 <= number <= MAX_TOKENS_PER_REQUEST:
        raise ValueError("not a count")
    return round(number)


def has_counts(member: Member) -> bool:
    """Whether the member reports tokens, rightly or not."""
    return not COUNTS.keys().isdisjoint(member.counts or {})
