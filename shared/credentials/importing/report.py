"""What became of each entry of an import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImportedLine:
    """Outcome of one entry of an import."""

    #: The line that it begins on, counted from 1.
    number: int
    #: `added`, `duplicate`, `replaced`, `blank` or `invalid`.
    outcome: str
    #: The credential that has the token, '' for none.
    id: str = ""
    #: Why the entry is invalid, '' for any other; it repeats nothing of the text.
    reason: str = ""


@dataclass(frozen=True)
class ImportReport:
    """Outcomes of all entries of an import."""

    lines: tuple[ImportedLine, ...]

    def count(self, outcome: str) -> int:
        return sum(line.outcome == outcome for line in self.lines)

    @property
    def new_ids(self) -> tuple[str, ...]:
        return tuple(line.id for line in self.lines if line.outcome == "added" and line.id)

    @property
    def invalid(self) -> tuple[ImportedLine, ...]:
        return tuple(line for line in self.lines if line.outcome == "invalid")

    def to_counts(self) -> dict[str, int]:
        """Number of entries per outcome, under the names in OUTCOMES; `replaced` only if there are any."""
        counts = {name: self.count(outcome) for outcome, name in OUTCOMES.items()}
        return {name: count for name, count in counts.items() if count or name != "replaced"}


#: Outcome of an entry -> name of its count.
OUTCOMES = {
    "added": "added",
    "duplicate": "duplicates",
    "replaced": "replaced",
    "blank": "blanks",
    "invalid": "invalid",
}
