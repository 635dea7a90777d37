"""Attempts of the last hour are summed up from slots of five minutes."""

import random
import statistics
from collections import Counter

import pytest

from shared.credentials.activity.attempt_counts import (
    SLOT_SECONDS,
    SlotCounts,
    find_bucket,
    find_median,
    oldest_slot,
    slot_start,
    sum_up,
)


@pytest.mark.parametrize("spread", [0.01, 0.5, 2.0])
def test_median_is_right_to_a_tenth(spread: float):
    chooser = random.Random(1)
    seconds = [chooser.lognormvariate(0, spread) for _ in range(500)]
    found = find_median(Counter(map(find_bucket, seconds)))
    assert found == pytest.approx(statistics.median(seconds), rel=0.13)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e9])
def test_odd_times_are_counted(seconds: float):
    assert find_median(Counter([find_bucket(seconds)])) is not None


def test_no_attempt_is_no_rate_and_no_median():
    assert (sum_up([]).success_rate, sum_up([]).first_byte_seconds) == (None, None)


def test_slots_are_added_up():
    recent = sum_up([SlotCounts(3, 1, Counter({10: 3})), SlotCounts(0, 0), SlotCounts(5, 1, Counter({10: 5}))])
    assert (recent.served, recent.failed, recent.success_rate) == (8, 2, 0.8)


def test_last_hour_ends_with_the_slot_that_is_being_filled():
    now = 1_000 * SLOT_SECONDS + 7
    assert slot_start(now) - oldest_slot(now) == 3600 - SLOT_SECONDS


@pytest.mark.parametrize("stored", ["", "[]", "{}", '{"served": 1, "failed": 0, "first_bytes": 3}', '{"served": "x"}'])
def test_slot_of_another_form_counts_nothing(stored: str):
    assert SlotCounts.decode(stored) == SlotCounts()
