"""When a queue will be empty, or full."""

import pytest

from shared.queue_view.drain_clock import find_capacity, foretell


@pytest.mark.parametrize(
    ("workers", "mean_seconds", "are_serving", "capacity"),
    [(4, 2.0, True, 2.0), (0, 2.0, True, 0.0), (4, 2.0, False, 0.0), (4, None, True, None)],
)
def test_capacity_follows_from_the_workers_in_service(
    workers: int, mean_seconds: float | None, are_serving: bool, capacity: float | None
):
    assert find_capacity(workers, mean_seconds, are_serving=are_serving) == capacity


@pytest.mark.parametrize(
    ("waiting", "arrivals", "capacity", "expected"),
    [
        (100, 3.0, 5.0, (50.0, None)),
        (100, 5.0, 3.0, (None, 450.0)),
        (100, 4.0, 4.0, (None, None)),
        (0, 4.0, 5.0, (0.0, None)),
        (0, 0.0, None, (0.0, None)),
        (0, 5.0, 3.0, (0.0, 450.0)),
        (100, None, 5.0, (None, None)),
        (100, 5.0, None, (None, None)),
        # Paused: nothing is served.
        (100, 2.0, 0.0, (None, 450.0)),
    ],
)
def test_queue_is_empty_or_full_by_what_arrives_and_what_is_served(
    waiting: int, arrivals: float | None, capacity: float | None, expected: tuple[float | None, float | None]
):
    assert foretell(waiting, 900, arrivals, capacity) == expected


def test_queue_that_is_fuller_than_it_may_be_is_full_now():
    assert foretell(100, -5, 5.0, 3.0) == (None, 0.0)
