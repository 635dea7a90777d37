"""Cursor pagination for the admin API."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from shared.errors import ApiError

T = TypeVar("T")


def paginate(entries: Sequence[T], ids: Sequence[str], limit: int, cursor: str) -> tuple[list[T], str | None]:
    """Returns the entries after the one with id `cursor`, and the next cursor, if any. Raises ApiError 404."""
    start = 0
    if cursor:
        if cursor not in ids:
            raise ApiError(404, "not_found", "the cursor's entry no longer exists", param="cursor")
        start = ids.index(cursor) + 1
    end = start + limit
    return list(entries[start:end]), ids[end - 1] if end < len(entries) else None


def take_page(entries: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """Returns up to `limit` entries, and whether there are more."""
    page = list(islice(entries, limit + 1))
    return page[:limit], len(page) > limit


def parse_stream_cursor(cursor: str) -> str:
    """Validates a cursor that is the id of a stream entry, '' for none. Raises ApiError 404."""
    head, _, tail = cursor.partition("-")
    if cursor and not (cursor.isascii() and head.isdigit() and tail.isdigit() and max(len(head), len(tail)) < 19):
        raise ApiError(404, "not_found", "invalid cursor", param="cursor")
    return cursor
