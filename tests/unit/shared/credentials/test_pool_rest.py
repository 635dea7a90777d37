"""A queued request's turn in a resting pool comes when the credentials before it have come back and served."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.pool_rest import PoolRest


def serve_one_by_one(rest: PoolRest, ahead: int) -> float:
    """When a request starts behind `ahead` others, if each free credential takes the next one."""
    free_at = list(rest.ends)
    for _ in range(ahead):
        heapq.heapreplace(free_at, free_at[0] + rest.cost)
    return free_at[0]


@given(
    ends=st.lists(st.floats(1000, 2000), min_size=1, max_size=8),
    ahead=st.integers(0, 200),
    cost=st.floats(0.01, 20),
)
def test_turn_is_that_of_a_queue_served_one_by_one(ends: list[float], ahead: int, cost: float):
    rest = PoolRest(tuple(sorted(ends)), cost)
    exact = serve_one_by_one(rest, ahead)
    assert exact - cost - 1e-6 <= rest.find_turn(ahead) <= exact + cost + 1e-6


def test_first_request_starts_when_the_first_credential_comes_back():
    rest = PoolRest((100.0, 400.0), 2.0)
    assert (rest.ends_at, rest.find_turn(0), rest.find_turn(10)) == (100.0, 100.0, 120.0)
    assert rest.find_turn(150 + 100) == pytest.approx(500)
