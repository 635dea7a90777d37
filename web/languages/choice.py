"""Chooses the language of a page: the reader's choice, else the best of `Accept-Language` (RFC 9110 section 12.5.4)."""

from collections.abc import Collection, Iterator

from web.languages.catalogues import ENGLISH

#: Ranges of one header that are looked at; browsers send fewer than ten.
MAX_RANGES = 30


def choose_language(codes: Collection[str], chosen: str, accepted: str) -> str:
    """The code of a language: `chosen` if there is it, else the first acceptable one, else English.

    A regional variety is taken for its language: zh-TW reads Simplified Chinese rather than English.
    """
    if chosen in codes:
        return chosen
    wanted = (tag.partition("-")[0] for tag in list_by_preference(accepted))
    return next((code for code in wanted if code in codes), ENGLISH)


def list_by_preference(accepted: str) -> Iterator[str]:
    """The tags of an `Accept-Language` header in lower case, the preferred first; those of weight 0 are left out."""
    weighted: list[tuple[float, int, str]] = []
    for item in accepted.lower().split(",")[:MAX_RANGES]:
        tag, _, parameter = item.partition(";")
        weight = read_weight(parameter)
        if tag.strip() and weight > 0:
            weighted.append((-weight, len(weighted), tag.strip()))
    return (tag for _, _, tag in sorted(weighted))


def read_weight(parameter: str) -> float:
    """`q=0.8` as a number; 1 without one, 0 for one that can't be read."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip() == "q" and 0 <= float(value) <= 1 else 0.0
    except ValueError:
        return 0.0
