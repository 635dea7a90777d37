"""Figures over several runs: median, minimum and maximum. No I/O."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One figure of one run."""

    scenario: str
    #: The load, e.g. `100 accounts, 1 s`.
    case: str
    system: str
    name: str
    value: float


@dataclass
class Figure:
    """One figure of all runs."""

    scenario: str
    case: str
    system: str
    name: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        least, most = min(self.values), max(self.values)
        return f"{self.median:.4g}" if least == most else f"{self.median:.4g} ({least:.4g} to {most:.4g})"


class Figures:
    """All figures of a comparison."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._figures: dict[tuple[str, str, str, str], Figure] = {}
        for sample in samples:
            key = (sample.scenario, sample.case, sample.system, sample.name)
            self._figures.setdefault(key, Figure(*key)).values.append(sample.value)
        self.all = list(self._figures.values())

    def find_median(self, scenario: str, case: str, system: str, name: str) -> float | None:
        """None when the figure was not measured."""
        figure = self._figures.get((scenario, case, system, name))
        return figure.median if figure else None

    def group_by_case(self, scenario: str) -> dict[str, list[Figure]]:
        """Case -> figures of this scenario."""
        cases: defaultdict[str, list[Figure]] = defaultdict(list)
        for figure in self.all:
            if figure.scenario == scenario:
                cases[figure.case].append(figure)
        return dict(cases)

    @property
    def scenarios(self) -> list[str]:
        """The measured scenarios, in the order of their first sample."""
        return list(dict.fromkeys(figure.scenario for figure in self.all))
