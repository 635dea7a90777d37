"""Reads the Cache-Control header of a request (RFC 9111 section 5.2.1)."""

import re
from dataclasses import dataclass

#: Up to a comma that is not within a quoted string (RFC 9110 section 5.6).
DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


@dataclass(frozen=True)
class CacheControl:
    """What a caller says about kept answers."""

    #: Whether one may be used; and whether the caller's may be kept.
    may_use: bool = True
    may_keep: bool = True
    #: Whether nothing is to be run.
    only_if_cached: bool = False
    #: Seconds of age, at most; and for which the answer would still be kept, at least.
    max_age: float = float("inf")
    min_fresh: float = 0.0

    @classmethod
    def parse(cls, header: str) -> "CacheControl":
        """Directives that are unknown mean nothing; a time that can't be read is 0."""
        directives: dict[str, str] = {}
        for directive in DIRECTIVE.findall(header.lower()):
            name, _, value = directive.partition("=")
            directives.setdefault(name.strip(), value.strip().strip('"'))
        max_age = read_seconds(directives["max-age"]) if "max-age" in directives else float("inf")
        return cls(
            may_use="no-cache" not in directives and max_age > 0,
            may_keep="no-store" not in directives,
            only_if_cached="only-if-cached" in directives,
            max_age=max_age,
            min_fresh=read_seconds(directives.get("min-fresh", "")),
        )


def read_seconds(value: str) -> float:
    """RFC 9111 section 1.2.2: what is too large to be counted is 2^31."""
    return float(min(int(value[:12]), 2**31)) if value.isascii() and value.isdigit() else 0.0
