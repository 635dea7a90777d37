"""Rewrites responses: hides a usage or sets it to zero, and restores the name of a mapped model. No I/O.

Everything else passes byte for byte (I10).
"""

import json
import re

from shared.json_object import cut_members
from shared.parsing import parse_json_object
from shared.protocol.sse import Event, replace_data
from shared.response.usage import find_members, has_counts

#: In JSON: a number that is written as text, any other string, or a number.
NUMBER = re.compile(r'(?P<text>:\s*)"-?[0-9][0-9.eE+-]*"|"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')


class ModelRenamer:
    """Gives a mapped model the name that the caller used."""

    def __init__(self, upstream_model: str, requested_model: str) -> None:
        self._pattern = re.compile(rb'(?<!\\)("model"\s*:\s*)' + re.escape(quote_json(upstream_model)))
        self._replacement = quote_json(requested_model)

    def rename(self, data: bytes) -> bytes:
        """`data`: whole events, or a whole body."""
        return self._pattern.sub(lambda match: match.group(1) + self._replacement, data)


def hide_usage(event: Event) -> bytes:
    """The event without its usage; b'' for one that has nothing else.

    `stream_options.include_usage` adds a chunk without choices and `"usage": null` to all others (OpenAI API reference,
    "Streaming"). Upstreams also send it with `choices` null or missing, or beside the last choice.
    """
    text = (event.data or b"").decode(errors="surrogateescape")
    members = [member for member in find_members(text) if member.is_null or member.counts == {} or has_counts(member)]
    if not members:
        return event.raw
    payload = parse_json_object(event.data or b"")
    if not payload:
        return event.raw
    if not payload.get("choices") and not payload.get("error") and any(map(has_counts, members)):
        return b""
    return replace_data(
        event, cut_members(text, [(member.start, member.end) for member in members]).encode(errors="surrogateescape")
    )


def zero_usage(text: str) -> str:
    """JSON with each number of its usage set to zero."""
    parts, position = [], 0
    for member in find_members(text):
        if has_counts(member):
            parts += [text[position : member.start], NUMBER.sub(write_zero, text[member.start : member.end])]
            position = member.end
    return "".join([*parts, text[position:]])


def write_zero(match: re.Match[str]) -> str:
    if match["text"]:
        return match["text"] + '"0"'
    return match[0] if match[0].startswith('"') else "0"


def zero_event_usage(event: Event) -> bytes:
    """The event with each number of its usage set to zero."""
    text = (event.data or b"").decode(errors="surrogateescape")
    zeroed = zero_usage(text)
    return event.raw if zeroed == text else replace_data(event, zeroed.encode(errors="surrogateescape"))


def quote_json(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()
