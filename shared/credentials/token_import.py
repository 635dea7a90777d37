"""Parses refresh tokens from lines of text and reports the outcome of an import. No I/O."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared.credentials.token_forms import find_tokens

#: Maximum characters of a refresh token; longer lines are invalid.
MAX_TOKEN_LENGTH = 16_384
#: What is plainly no token: a part of a JSON document that can't be read, a URL, an address of mail.
NO_TOKEN = re.compile(r"""[\[\]{}"']|https?://|[^@]+@[^@]+\.[A-Za-z]+$""")


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


def classify_lines(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yields number, 'token' | 'blank' | 'invalid' and text for each line, or for each token of a JSON document.

    Tokens are printable ASCII (RFC 6749 appendix A.17) without whitespace. Others, with a typographic dash from a
    copied text, say, can't be sent in a header and would be refused in a body.
    """
    for number, text in find_tokens(list(lines)):
        if not text:
            yield number, "blank", text
        else:
            is_valid = is_token(text) and not NO_TOKEN.match(text)
            yield number, "token" if is_valid else "invalid", text


def is_token(text: str) -> bool:
    """Whether it can be sent: it is not looked at for what else it might be."""
    return 0 < len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable() and " " not in text
