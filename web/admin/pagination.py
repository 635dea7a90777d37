"""Cursor pagination for the lists of the admin API."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from shared.errors import ApiError

T = TypeVar("T")


def paginate(found: Sequence[T], ids: Sequence[str], limit: int, cursor: str) -> tuple[list[T], str | None]:
    """The entries after the one whose id the cursor is, and the next cursor. Raises ApiError 404."""
    begin = 0
    if cursor:
        if cursor not in ids:
            raise ApiError(404, "not_found", "no entry has the cursor's id any more", param="cursor")
        begin = ids.index(cursor) + 1
    end = begin + limit
    return list(found[begin:end]), ids[end - 1] if end < len(found) else None


def take_page(found: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """As many entries as are wanted, and whether there are more."""
    taken = list(islice(found, limit + 1))
    return taken[:limit], len(taken) > limit


def parse_stream_cursor(cursor: str) -> str:
    """A cursor that is the id of an entry of a stream. Raises ApiError 404."""
    head, _, tail = cursor.partition("-")
    if cursor and not (cursor.isascii() and head.isdigit() and tail.isdigit() and max(len(head), len(tail)) < 19):
        raise ApiError(404, "not_found", "there is no such cursor", param="cursor")
    return cursor
