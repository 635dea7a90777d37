"""Lists of what an API key stores, in pages (OpenAI API reference)."""

from collections.abc import Sequence
from typing import Any, Protocol

from shared.errors import ApiError
from shared.parsing import parse_whole_number
from web.request_context import current_request


class Stored(Protocol):
    """A record that callers see."""

    def describe(self) -> dict[str, Any]:
        """The object of OpenAI's API."""


def read_limit(most: int, default: int) -> int:
    """How many the request asks for. Raises ApiError 400."""
    text = current_request()[0].args.get("limit", "")
    if not text:
        return default
    limit = parse_whole_number(text, 1, most)
    if limit is None:
        raise ApiError(400, "invalid_value", f"'limit' must be a whole number from 1 to {most}", param="limit")
    return limit


def build_page(found: Sequence[Stored], limit: int) -> dict[str, Any]:
    """`found`: one more than `limit` if there are more."""
    page = [record.describe() for record in found[:limit]]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }
