"""Chooses the language of a page: the reader's choice, else the best of `Accept-Language` (RFC 9110 section 12.5.4)."""

from collections.abc import Collection

from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from shared.languages.catalogues import ENGLISH


def choose_language(codes: Collection[str], chosen: str, accepted: str) -> str:
    """The code of a language: `chosen` if there is it, else the first acceptable one, else English.

    A regional variety is taken for its language: zh-TW reads Simplified Chinese rather than English.
    """
    if chosen in codes:
        return chosen
    preferred = parse_accept_header(accepted, LanguageAccept)
    wanted = (tag.lower().partition("-")[0] for tag, weight in preferred if weight > 0)
    return next((code for code in wanted if code in codes), ENGLISH)
