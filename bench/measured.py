"""One figure of a measurement, and the bound that it has to keep."""

from dataclasses import dataclass


@dataclass
class Measured:
    """One figure."""

    scenario: str
    name: str
    value: str
    bound: str = ""
    #: Whether it keeps its bound; None when it has none.
    holds: bool | None = None
    #: Whether it is a count that does not depend on how fast the machine is.
    exact: bool = False


def at_least(scenario: str, name: str, value: float, bound: float) -> Measured:
    """A figure that must not be lower."""
    return Measured(scenario, name, f"{value:.4g}", f">= {bound:g}", value >= bound)


def at_most(scenario: str, name: str, value: float, bound: float) -> Measured:
    """A figure that must not be higher."""
    return Measured(scenario, name, f"{value:.4g}", f"<= {bound:g}", value <= bound)


def exactly(scenario: str, name: str, value: float, bound: float = 0) -> Measured:
    """A count that must be just that, on any machine."""
    return Measured(scenario, name, f"{value:g}", f"= {bound:g}", value == bound, exact=True)


def told(scenario: str, name: str, value: float) -> Measured:
    """A figure without a bound."""
    return Measured(scenario, name, f"{value:g}")
