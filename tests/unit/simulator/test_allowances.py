"""Windows in which the simulator counts an account's requests."""

import pytest

from simulator.allowances import Allowances, FixedWindow, SlidingWindow, Window


@pytest.mark.parametrize(
    ("window", "allowed"),
    [
        # At 61 the fixed window is over with all that it has counted; only the first request has left the sliding one.
        (FixedWindow(60.0), [True, True, False, True, True, False, False]),
        (SlidingWindow(60.0), [True, True, False, True, False, True, False]),
    ],
    ids=["fixed", "sliding"],
)
def test_requests_are_allowed_by_the_window(window: Window, allowed: list[bool]):
    assert [window.take(2, at) for at in (1.0, 40.0, 60.9, 61.0, 99.9, 100.0, 100.5)] == allowed


def test_sliding_window_ends_when_its_oldest_request_leaves_it():
    window = SlidingWindow(60.0)
    assert window.ends_at == 0.0
    for at in (10.0, 20.0):
        window.take(2, at)
    assert (window.count_left(2, 69.9), window.ends_at) == (0, 70.0)
    assert (window.count_left(2, 70.0), window.ends_at) == (1, 80.0)


def test_requests_that_meet_a_limit_are_recorded():
    allowances = Allowances(requests=1, sliding=True, model="m")
    assert [allowances.take(7, model) for model in ("m", "other", "m")] == [True, True, False]
    assert [(arrival.account, arrival.is_allowed) for arrival in allowances.arrivals] == [(7, True), (7, False)]
    assert "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: " in allowances.headers(7, "m")
