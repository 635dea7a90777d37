"""Totals are split evenly within capacities."""

import pytest

from workers.process.fair_shares import UNLIMITED_CAPACITY, split_evenly


@pytest.mark.parametrize(
    ("total", "capacities", "shares"),
    [
        (100, {"a": UNLIMITED_CAPACITY}, {"a": 100}),
        (100, {"a": UNLIMITED_CAPACITY, "b": UNLIMITED_CAPACITY}, {"a": 50, "b": 50}),
        (100, {"a": UNLIMITED_CAPACITY, "b": UNLIMITED_CAPACITY, "c": UNLIMITED_CAPACITY}, {"a": 33, "b": 33, "c": 34}),
        (100, {"a": 10, "b": UNLIMITED_CAPACITY}, {"a": 10, "b": 90}),
        (100, {"a": 10, "b": 20}, {"a": 10, "b": 20}),
        (1, {"a": UNLIMITED_CAPACITY, "b": UNLIMITED_CAPACITY}, {"a": 0, "b": 1}),
        (0, {"a": 5}, {"a": 0}),
        (5, {}, {}),
    ],
)
def test_shares_are_even_within_capacities_and_add_up(total, capacities, shares):
    assert split_evenly(total, capacities) == shares
