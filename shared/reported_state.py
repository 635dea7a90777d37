"""The state of something that operators watch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class ReportedState:
    """A state, and since when it lasts."""

    #: State -> what an operator should know of it, as a sentence without a full stop; '' for nothing to worry about.
    MEANINGS: ClassVar[Mapping[str, str]] = {}

    state: str
    #: In seconds since the epoch; None when that isn't known.
    since: float | None = None

    @property
    def warnings(self) -> list[str]:
        return [self.MEANINGS[self.state]] if self.MEANINGS[self.state] else []

    def to_dict(self) -> dict[str, Any]:
        return {"state": self.state, "since": self.since}
