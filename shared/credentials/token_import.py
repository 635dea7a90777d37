"""Refresh tokens as lines of a text: which lines are tokens, and what became of each; no Redis."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: The longest refresh token taken; longer lines are not tokens.
MAX_TOKEN_LENGTH = 16_384


@dataclass(frozen=True)
class ImportedLine:
    """What became of one line of an import."""

    #: Its number, from 1.
    number: int
    #: `added`, `duplicate`, `blank` or `invalid`.
    outcome: str
    #: The credential that has the token; '' when there is none.
    id: str = ""


@dataclass(frozen=True)
class ImportReport:
    """What became of the lines of an import."""

    lines: tuple[ImportedLine, ...]

    def count(self, outcome: str) -> int:
        """How many lines ended so."""
        return sum(line.outcome == outcome for line in self.lines)

    @property
    def ids(self) -> tuple[str, ...]:
        """The new credentials."""
        return tuple(line.id for line in self.lines if line.outcome == "added")

    def to_counts(self) -> dict[str, int]:
        """Of each outcome, how many."""
        return {name: self.count(outcome) for outcome, name in OUTCOMES.items()}


#: Outcome of a line -> what it is counted as.
OUTCOMES = {"added": "added", "duplicate": "duplicates", "blank": "blanks", "invalid": "invalid"}


def classify_lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line as ('token' | 'blank' | 'invalid', trimmed text). A token is printable and has no space in it."""
    for line in lines:
        token = line.strip().lstrip("\ufeff")
        if not token:
            yield "blank", token
        elif len(token) > MAX_TOKEN_LENGTH or not token.isprintable() or any(c.isspace() for c in token):
            yield "invalid", token
        else:
            yield "token", token
