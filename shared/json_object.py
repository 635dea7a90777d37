"""Parses a JSON object's top-level members, and changes single ones without changing any other byte (RFC 8259)."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

#: Separators in a JSON object (RFC 8259 section 2).
WHITESPACE = re.compile(r"[ \t\n\r]*")
COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
COMMA = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
#: Values in a body, estimated by the characters that precede them: each costs about 100 bytes while it is parsed.
MAX_VALUES = 1_000_000


class InvalidObject(ValueError):
    """Raised for a body that is no JSON object; the message says why."""


def parse_object(body: bytes, unique: tuple[str, ...]) -> dict[str, Any]:
    """Parses a JSON object. Raises InvalidObject, also when a member named in `unique` is there twice.

    Parsers differ in which of two members of the same name they take.
    """
    if body.count(b"[") + body.count(b"{") + body.count(b",") > MAX_VALUES:
        raise InvalidObject("the request body has too many values")
    # The hook is called for every object, for the outermost last.
    members: list[tuple[str, Any]] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal members
        members = pairs
        return dict(pairs)

    try:
        value = json.loads(body, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        raise InvalidObject("the request body is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidObject("the request body must be a JSON object")
    if len(value) < len(members):
        names = [name for name, _ in members]
        if twice := next((name for name in unique if names.count(name) > 1), None):
            raise InvalidObject(f"{twice} is given twice")
    return value


def add_member(body: bytes, name: str, value: Any) -> bytes:
    """Adds a top-level member to a JSON object, at its end or in place of a null; no other byte changes."""
    if json.detect_encoding(body) != "utf-8" or f'"{name}"'.encode() in body:
        body = replace_member(body, name, value)
        if name in json.loads(body):
            return body
    unclosed = body.decode(json.detect_encoding(body), "surrogatepass").rstrip().removesuffix("}")
    return f"{unclosed}, {json.dumps(name)}: {json.dumps(value)}}}".encode("utf-8", "surrogatepass")


def replace_member(body: bytes, name: str, value: Any) -> bytes:
    """Replaces the value of a top-level member of a JSON object; no other byte changes."""
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    parts, copied = [], 0
    for member in iter_members(text):
        if member.name == name:
            parts += [text[copied : member.value_start], json.dumps(value)]
            copied = member.end
    return "".join((*parts, text[copied:])).encode("utf-8", "surrogatepass")


def remove_member(body: bytes, name: str) -> bytes:
    """Takes a top-level member out of a JSON object, with one comma and white space beside it."""
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    spans = [(member.start, member.end) for member in iter_members(text) if member.name == name]
    return cut_members(text, spans).encode("utf-8", "surrogatepass")


class Member(NamedTuple):
    """A member of a JSON object, by its offsets."""

    name: str
    start: int
    value_start: int
    end: int


def iter_members(text: str) -> Iterator[Member]:
    """Yields the top-level members of a valid JSON object."""
    decoder = json.JSONDecoder()
    start = skip_whitespace(text, text.index("{") + 1)
    while text[start] != "}":
        name, position = decoder.raw_decode(text, start)
        value_start = COLON.match(text, position).end()  # type: ignore[union-attr]
        _, end = decoder.raw_decode(text, value_start)
        yield Member(name, start, value_start, end)
        start = COMMA.match(text, end).end()  # type: ignore[union-attr]


def cut_members(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without the members at these offsets, each with one comma."""
    parts, position = [], 0
    for start, end in spans:
        before, after = skip_whitespace_back(text, start), skip_whitespace(text, end)
        if before > position and text[before - 1] == ",":
            parts.append(text[position : before - 1])
            position = end
        else:
            parts.append(text[position:start])
            position = skip_whitespace(text, after + 1) if text[after : after + 1] == "," else end
    return "".join((*parts, text[position:]))


def skip_whitespace(text: str, position: int) -> int:
    return WHITESPACE.match(text, position).end()  # type: ignore[union-attr]


def skip_whitespace_back(text: str, position: int) -> int:
    while text[position - 1 : position] in (" ", "\t", "\n", "\r"):
        position -= 1
    return position
