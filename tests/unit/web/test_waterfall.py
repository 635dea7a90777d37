"""A request's time, step by step."""

from typing import Any

import pytest

from web.console.requests.waterfall import Step, list_steps


def entry(*tried: dict[str, Any], **changes: Any) -> dict[str, Any]:
    times = {"queue_ms": 100, "first_ms": 300, "total_ms": 900, "credential": "c9", "status": 200}
    return {**times, "tried": list(tried), **changes}


def attempt(started_ms: int | None, milliseconds: int, credential: str = "c1") -> dict[str, Any]:
    return {
        "credential": credential,
        "outcome": "upstream_error",
        "status": 503,
        "milliseconds": milliseconds,
        "started_ms": started_ms,
    }


def brief(steps: list[Step]) -> list[tuple[str, int, int, str]]:
    return [(step.kind, step.begin, step.end, step.credential) for step in steps]


def test_served_request_waits_and_gets_its_first_byte_and_the_rest():
    assert brief(list_steps(entry())) == [("queue", 0, 100, ""), ("first", 100, 300, "c9"), ("reply", 300, 900, "c9")]


def test_failed_attempts_are_steps_with_the_waits_between_them():
    steps = list_steps(entry(attempt(100, 50), attempt(152, 48, "c2"), queue_ms=250))
    assert brief(steps) == [
        ("queue", 0, 100, ""),
        ("failed", 100, 150, "c1"),
        ("failed", 152, 200, "c2"),
        ("wait", 200, 250, ""),
        ("first", 250, 300, "c9"),
        ("reply", 300, 900, "c9"),
    ]
    assert (steps[1].outcome, steps[1].status, steps[1].took) == ("upstream_error", 503, 50)


def test_last_attempt_that_failed_is_there_once():
    steps = list_steps(entry(attempt(100, 60), queue_ms=100, first_ms=0, total_ms=170, credential="c1", status=503))
    assert brief(steps) == [("queue", 0, 100, ""), ("failed", 100, 160, "c1")]


def test_request_that_no_account_got_only_waited():
    steps = list_steps(entry(queue_ms=5000, first_ms=0, total_ms=5000, credential=""))
    assert brief(steps) == [("queue", 0, 5000, "")]


def test_attempts_without_a_time_are_one_wait():
    steps = list_steps(entry(attempt(None, 60)))
    assert brief(steps) == [("queue", 0, 100, ""), ("first", 100, 300, "c9"), ("reply", 300, 900, "c9")]


@pytest.mark.parametrize("total_ms", [0, 50, 250])
def test_no_step_ends_before_it_begins(total_ms: int):
    """Clocks of two hosts may differ."""
    steps = list_steps(entry(attempt(400, 60), total_ms=total_ms))
    assert all(step.took >= 0 for step in steps)
