import pytest

from workers.process.fair_shares import UNBOUNDED, fair_shares


@pytest.mark.parametrize(
    ("total", "capacities", "shares"),
    [
        (100, {"a": UNBOUNDED}, {"a": 100}),
        (100, {"a": UNBOUNDED, "b": UNBOUNDED}, {"a": 50, "b": 50}),
        (100, {"a": UNBOUNDED, "b": UNBOUNDED, "c": UNBOUNDED}, {"a": 33, "b": 33, "c": 34}),
        (100, {"a": 10, "b": UNBOUNDED}, {"a": 10, "b": 90}),
        (100, {"a": 10, "b": 20}, {"a": 10, "b": 20}),
        (1, {"a": UNBOUNDED, "b": UNBOUNDED}, {"a": 0, "b": 1}),
        (0, {"a": 5}, {"a": 0}),
        (5, {}, {}),
    ],
)
def test_shares_are_even_within_capacities_and_lose_nothing(total, capacities, shares):
    assert fair_shares(total, capacities) == shares
