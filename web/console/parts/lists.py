"""Filters, order and page of a list, all of which are in its URL."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flask import request

T = TypeVar("T")
#: Entries of a page.
PAGE_SIZE = 100
#: Characters of a filter that are looked at.
MAX_TEXT_LENGTH = 200


@dataclass(frozen=True)
class Listing(Generic[T]):
    """One page of a list, and how many entries there are on all pages."""

    entries: Sequence[T]
    page: int
    pages: int
    total: int


def read_text(name: str, fields: Mapping[str, str] | None = None) -> str:
    """A parameter of the query, or of other `fields`; '' without it."""
    return (request.args if fields is None else fields).get(name, "").strip()[:MAX_TEXT_LENGTH]


def read_choice(name: str, choices: Sequence[str], default: str = "", fields: Mapping[str, str] | None = None) -> str:
    """A parameter that must be one of several; anything else is the default."""
    value = read_text(name, fields)
    return value if value in choices else default


def read_choices(name: str, choices: Sequence[str]) -> tuple[str, ...]:
    """A parameter that may be given several times, in the order of the choices."""
    given = {part for value in request.args.getlist(name) for part in value.split(",")}
    return tuple(choice for choice in choices if choice in given)


def take_page(entries: Sequence[T]) -> Listing[T]:
    """The page that `?page=` asks for; one beyond the last is the last."""
    asked = read_text("page")
    pages = max(1, math.ceil(len(entries) / PAGE_SIZE))
    page = min(pages, max(1, int(asked[:9]) if asked.isdecimal() else 1))
    return Listing(entries[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], page, pages, len(entries))
