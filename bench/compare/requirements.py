"""The requirements that the farm's figures have to meet."""

from dataclasses import dataclass

from bench.compare.figures import Figures


@dataclass(frozen=True)
class Requirement:
    """A bound on one figure of the farm."""

    scenario: str
    case: str
    name: str
    #: `>=` or `<=`.
    relation: str
    bound: float
    #: Another system whose median of the same figure is added to the bound; '' for none.
    baseline: str = ""
    #: Whether that median is multiplied by the bound instead.
    is_factor: bool = False

    def evaluate(self, figures: Figures) -> tuple[float, float, bool] | None:
        """The farm's median, its bound and whether the bound holds; None when something was not measured."""
        value = figures.find_median(self.scenario, self.case, "farm", self.name)
        other = figures.find_median(self.scenario, self.case, self.baseline, self.name) if self.baseline else 0.0
        if value is None or other is None:
            return None
        bound = other * self.bound if self.is_factor else other + self.bound
        return value, bound, value >= bound if self.relation == ">=" else value <= bound

    def __str__(self) -> str:
        bound = f"{self.bound:g}"
        if self.baseline:
            bound = f"{self.bound:g} x {self.baseline}" if self.is_factor else f"{self.baseline} {self.bound:+g}"
        return f"{self.scenario}, {self.case}: {self.name} {self.relation} {bound}"


REQUIREMENTS = (
    Requirement("overhead", "50 clients", "CPU ms per request: all", "<=", 2.0),
    Requirement("overhead", "50 clients", "requests/s", ">=", 1.0, "portkey", is_factor=True),
    Requirement("overhead", "50 clients", "requests/s", ">=", 5.0, "litellm", is_factor=True),
    Requirement("overhead", "1 client", "added latency p50, ms", "<=", 2.5),
    Requirement("overhead", "1 client", "added latency p99, ms", "<=", 6.0),
    Requirement("streaming", "100 streams", "CPU us per chunk: all", "<=", 150.0),
    Requirement("streaming", "100 streams", "share of the ideal rate", ">=", 0.98),
    Requirement("streaming", "100 streams", "added gap p99, ms", "<=", 20.0),
    Requirement("utilisation", "100 accounts, 1 s", "share of the ideal", ">=", 0.99),
    Requirement("utilisation", "100 accounts, 0.2 s", "share of the ideal", ">=", 0.97),
    Requirement("utilisation", "100 accounts, 1 s", "share of the ideal", ">=", -0.01, "haproxy"),
    Requirement("utilisation", "100 accounts, 0.2 s", "share of the ideal", ">=", -0.01, "haproxy"),
    Requirement("utilisation", "1000 accounts, 5 s", "share of the ideal", ">=", 0.97),
    Requirement("utilisation", "1000 accounts, 5 s", "MB PSS under load", "<=", 400.0),
    *(
        Requirement("utilisation", case, name, "<=", 0.0)
        for case in ("100 accounts, 1 s", "100 accounts, 0.2 s", "1000 accounts, 5 s")
        for name in ("collisions", "errors at clients")
    ),
    Requirement("growth", "1000 over 10 credentials", "cost per request", "<=", 1.2),
    Requirement("growth", "depth 10000 over 0", "cost per request", "<=", 1.2),
    *(
        Requirement("growth", case, "errors at clients", "<=", 0.0)
        for case in ("1000 credentials", "depth 1000", "depth 10000")
    ),
    Requirement("start", "warm", "seconds to ready", "<=", 3.0),
)
