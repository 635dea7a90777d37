"""Events that belong together are one row of the time line."""

from typing import Any

from web.admin.telemetry.schemas import Event
from web.console.timeline.grouping import GROUP_SECONDS, group_events


def build(time: float, kind: str = "credential_cooling", **fields: Any) -> Event:
    texts = dict.fromkeys(("id", "pool", "credential", "credential_name", "reason", "evidence", "request"), "")
    texts |= dict.fromkeys(("worker_process", "message", "who", "target"), "")
    return Event(**{**texts, "until": 0.0, "time": time, "kind": kind, **fields})


def times(*events: Event) -> list[list[float]]:
    return [[event.time for event in group.events] for group in group_events(events)]


def test_events_shortly_after_each_other_are_a_group():
    assert times(build(10.0), build(9.0), build(7.5)) == [[10.0, 9.0, 7.5]]
    assert times(build(10.0), build(10.0 - GROUP_SECONDS - 0.1)) == [[10.0], [6.9]]


def test_other_kinds_pools_and_reasons_are_groups_of_their_own():
    assert len(times(build(3.0), build(3.0, pool="b"), build(3.0, reason="x"), build(3.0, kind="credential_dead"))) == 4


def test_event_in_between_ends_no_group():
    assert times(build(3.0), build(2.5, kind="breaker_opened"), build(2.0)) == [[3.0, 2.0], [2.5]]


def test_changes_of_operators_stay_single():
    assert times(build(3.0, kind="operator"), build(3.0, kind="operator")) == [[3.0], [3.0]]
