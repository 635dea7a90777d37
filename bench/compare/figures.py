"""Figures of several runs: median, least and most; and what was promised of them."""

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
        """The median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        least, most = min(self.values), max(self.values)
        return f"{self.median:.4g}" if least == most else f"{self.median:.4g} ({least:.4g} to {most:.4g})"


class Figures:
    """All figures of a measurement."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        found: dict[tuple[str, str, str, str], Figure] = {}
        for one in samples:
            key = (one.scenario, one.case, one.system, one.name)
            found.setdefault(key, Figure(*key)).values.append(one.value)
        self.all = list(found.values())
        self._found = found

    def find(self, scenario: str, case: str, system: str, name: str) -> float | None:
        """The median, None when it was not measured."""
        figure = self._found.get((scenario, case, system, name))
        return figure.median if figure else None

    def by_case(self, scenario: str) -> dict[str, list[Figure]]:
        """Case -> its figures."""
        cases: defaultdict[str, list[Figure]] = defaultdict(list)
        for figure in self.all:
            if figure.scenario == scenario:
                cases[figure.case].append(figure)
        return dict(cases)

    @property
    def scenarios(self) -> list[str]:
        """Those that were measured, in their order."""
        return list(dict.fromkeys(figure.scenario for figure in self.all))


@dataclass(frozen=True)
class Promise:
    """What a figure of the farm has to keep."""

    scenario: str
    case: str
    name: str
    #: `>=` or `<=`.
    relation: str
    bound: float
    #: Another system whose same figure the bound is added to, or multiplies if `times`; '' for none.
    beside: str = ""
    times: bool = False

    def kept(self, figures: Figures) -> tuple[float, float, bool] | None:
        """The figure, its bound and whether it is kept; None when it was not measured."""
        value = figures.find(self.scenario, self.case, "farm", self.name)
        other = figures.find(self.scenario, self.case, self.beside, self.name) if self.beside else 0.0
        if value is None or other is None:
            return None
        bound = other * self.bound if self.times else other + self.bound
        return value, bound, value >= bound if self.relation == ">=" else value <= bound

    def __str__(self) -> str:
        bound = f"{self.bound:g}"
        if self.beside:
            bound = f"{self.bound:g} x {self.beside}" if self.times else f"{self.beside} {self.bound:+g}"
        return f"{self.scenario}, {self.case}: {self.name} {self.relation} {bound}"


PROMISES = (
    Promise("overhead", "50 clients", "CPU ms per request: all", "<=", 2.0),
    Promise("overhead", "50 clients", "requests/s", ">=", 1.0, "portkey", times=True),
    Promise("overhead", "50 clients", "requests/s", ">=", 5.0, "litellm", times=True),
    Promise("overhead", "1 client", "added latency p50, ms", "<=", 2.5),
    Promise("overhead", "1 client", "added latency p99, ms", "<=", 6.0),
    Promise("streaming", "100 streams", "CPU us per chunk: all", "<=", 150.0),
    Promise("streaming", "100 streams", "share of the ideal rate", ">=", 0.98),
    Promise("streaming", "100 streams", "added gap p99, ms", "<=", 20.0),
    Promise("utilisation", "100 accounts, 1 s", "share of the ideal", ">=", 0.99),
    Promise("utilisation", "100 accounts, 0.2 s", "share of the ideal", ">=", 0.97),
    Promise("utilisation", "100 accounts, 1 s", "share of the ideal", ">=", -0.01, "haproxy"),
    Promise("utilisation", "100 accounts, 0.2 s", "share of the ideal", ">=", -0.01, "haproxy"),
    Promise("utilisation", "1000 accounts, 5 s", "share of the ideal", ">=", 0.97),
    Promise("utilisation", "1000 accounts, 5 s", "MB PSS under load", "<=", 400.0),
    *(
        Promise("utilisation", case, name, "<=", 0.0)
        for case in ("100 accounts, 1 s", "100 accounts, 0.2 s", "1000 accounts, 5 s")
        for name in ("collisions", "errors at clients")
    ),
    Promise("growth", "1000 over 10 credentials", "cost per request", "<=", 1.2),
    Promise("growth", "depth 10000 over 0", "cost per request", "<=", 1.2),
    *(
        Promise("growth", case, "errors at clients", "<=", 0.0)
        for case in ("1000 credentials", "depth 1000", "depth 10000")
    ),
    Promise("start", "warm", "seconds to ready", "<=", 3.0),
)
