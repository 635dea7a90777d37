"""A measured figure and its bound."""

from dataclasses import dataclass


@dataclass
class Measurement:
    """One figure."""

    scenario: str
    name: str
    value: str
    bound: str = ""
    #: Whether the bound holds; None without a bound.
    holds: bool | None = None
    #: Whether it is a count that does not depend on the speed of the machine.
    exact: bool = False


def at_least(scenario: str, name: str, value: float, bound: float) -> Measurement:
    return Measurement(scenario, name, f"{value:.4g}", f">= {bound:g}", value >= bound)


def at_most(scenario: str, name: str, value: float, bound: float) -> Measurement:
    return Measurement(scenario, name, f"{value:.4g}", f"<= {bound:g}", value <= bound)


def exactly(scenario: str, name: str, value: float, bound: float = 0) -> Measurement:
    """A count that must equal the bound on any machine."""
    return Measurement(scenario, name, f"{value:g}", f"= {bound:g}", value == bound, exact=True)


def unbounded(scenario: str, name: str, value: float) -> Measurement:
    return Measurement(scenario, name, f"{value:g}")
