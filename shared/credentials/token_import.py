"""Parses refresh tokens from lines of text and reports the outcome of an import. No I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Maximum characters of a refresh token; longer lines are invalid.
MAX_TOKEN_LENGTH = 16_384


@dataclass(frozen=True)
class ImportedLine:
    """Outcome of one line of an import."""

    #: Counted from 1.
    number: int
    #: `added`, `duplicate`, `blank` or `invalid`.
    outcome: str
    #: The credential that has the token, '' for none.
    id: str = ""


@dataclass(frozen=True)
class ImportReport:
    """Outcomes of all lines of an import."""

    lines: tuple[ImportedLine, ...]

    def count(self, outcome: str) -> int:
        return sum(line.outcome == outcome for line in self.lines)

    @property
    def new_ids(self) -> tuple[str, ...]:
        return tuple(line.id for line in self.lines if line.outcome == "added")

    def to_counts(self) -> dict[str, int]:
        """Number of lines per outcome, under the names in OUTCOMES."""
        return {name: self.count(outcome) for outcome, name in OUTCOMES.items()}


#: Outcome of a line -> name of its count.
OUTCOMES = {"added": "added", "duplicate": "duplicates", "blank": "blanks", "invalid": "invalid"}


def classify_lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields ('token' | 'blank' | 'invalid', trimmed text) per line.

    Tokens are printable ASCII (RFC 6749 appendix A.17) without whitespace. Others, with a typographic dash from a
    copied text, say, can't be sent in a header and would be refused in a body.
    """
    for line in lines:
        token = line.strip().lstrip("\ufeff")
        if not token:
            yield "blank", token
        else:
            yield ("token" if is_token(token) else "invalid"), token


def is_token(text: str) -> bool:
    return len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable() and " " not in text
