"""Filters and order of lists that operators search. No I/O."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

T = TypeVar("T")


def matches_text(text: str, *values: str) -> bool:
    """Whether a value contains the text, whatever its case; with `*` or `?`, matches it as a whole. '' matches all."""
    wanted = text.lower()
    if "*" in wanted or "?" in wanted:
        return any(fnmatchcase(value.lower(), wanted) for value in values)
    return not wanted or any(wanted in value.lower() for value in values)


def sort_by(records: Iterable[T], order: str) -> list[T]:
    """Sorts by a field; `-` before its name turns the order round. Equal ones keep theirs, '' keeps all."""
    field = order.removeprefix("-")
    if not field:
        return list(records)

    def read(record: T) -> Any:
        value = getattr(record, field)
        return value.lower() if isinstance(value, str) else value

    return sorted(records, key=read, reverse=order.startswith("-"))
