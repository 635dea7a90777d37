"""The replay of the queue: whose turn is when."""

import pytest

from shared.queue_view.service_order import Servers, ServiceOrder, Turn
from shared.queue_view.snapshot import KeyLine, QueueSnapshot, Started

NOW = 1000.0
NOBODY_IDLE = Servers()


def line(key: str, tag: float = 0.0, requests: int = 3, weight: float = 1.0, end: float = 0.0) -> KeyLine:
    return KeyLine(key, tag, end, weight, requests, tuple(f"{key}{number}" for number in range(1, requests + 1)))


def list_turns(
    *lines: KeyLine, servers: Servers = NOBODY_IDLE, running: tuple[Started, ...] = (), cost: float | None = 1.0
) -> list[Turn]:
    snapshot = QueueSnapshot(cost=cost, lines={"interactive": lines, "batch": ()}, running=running)
    return ServiceOrder(snapshot, servers, {}, NOW).list_turns(100)


def runs(key: str, since: float, charged: float | None = 1.0) -> Started:
    return Started(f"running-{key}", NOW - since, key, charged, "interactive")


def test_smallest_tag_goes_first_and_equal_ones_by_name():
    assert [turn.request for turn in list_turns(line("b"), line("a"), line("c", tag=0.5, requests=1))] == [
        *("a1", "b1", "c1", "a2", "b2", "a3", "b3")
    ]


def test_weight_is_a_share():
    order = [turn.key for turn in list_turns(line("a", weight=2.0, requests=6), line("b", requests=3))]
    assert [order[:3].count("a"), order[:6].count("a")] == [2, 4]


def test_key_whose_request_runs_longer_than_charged_falls_back():
    """It has run for 4 s, of which 1 was charged, and is the first to end."""
    turns = list_turns(line("a"), line("b", tag=0.5), running=(runs("a", since=4.0),))
    assert [turn.request for turn in turns][:3] == ["b1", "b2", "b3"]


def test_key_whose_request_is_cheaper_than_charged_comes_forward():
    turns = list_turns(line("a", tag=5.0), line("b", tag=1.5), running=(runs("a", since=0.0, charged=9.0),))
    assert turns[0].request == "a1"


def test_request_without_a_charge_corrects_nothing():
    assert list_turns(line("a"), running=(runs("a", since=9.0, charged=None),))[0].request == "a1"


def test_times_follow_from_the_workers():
    running = (runs("x", since=0.25), runs("x", since=0.75))
    turns = list_turns(line("a", requests=4), running=running)
    assert [turn.eta for turn in turns] == [0.25, 0.75, 1.25, 1.75]


def test_idle_workers_serve_at_once_and_resting_ones_when_they_are_back():
    turns = list_turns(line("a", requests=4), servers=Servers(idle=1, resting=(0.5,)))
    assert [turn.eta for turn in turns] == [0.0, 0.5, 1.0, 1.5]


def test_overdue_request_is_expected_soon():
    assert list_turns(line("a", requests=1), running=(runs("x", since=30.0),))[0].eta == 0.25


@pytest.mark.parametrize(
    ("servers", "cost"), [(NOBODY_IDLE, 1.0), (Servers(idle=1, are_serving=False), 1.0), (Servers(idle=1), None)]
)
def test_time_is_unknown_without_workers_with_an_open_breaker_and_before_the_first_measurement(
    servers: Servers, cost: float | None
):
    assert [turn.eta for turn in list_turns(line("a"), servers=servers, cost=cost)] == [None, None, None]
