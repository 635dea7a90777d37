"""What `./farm top` draws fits the terminal and obeys nothing that names contain."""

import pytest

from launcher.live_screen import Account, LiveView, format_seconds, render
from shared.observability.pool_status import PoolStatus
from shared.observability.tape import Tape
from shared.queue_view.live_requests import RunningRequest, WaitingRequest
from shared.queue_view.pool_queue import PoolQueue

NOW = 1_000_000.0


def build_view(waiting: int = 2, running: int = 1, accounts: int = 2, **names: str) -> LiveView:
    fields = {"pool": "default", "key": "k1", "key_name": "reader", "model": "m", "admitted_at": NOW - 65, **names}
    line = [
        WaitingRequest(request=f"req_{number}", position=number, eta=1.25, **fields)  # type: ignore[arg-type]
        for number in range(1, waiting + 1)
    ]
    started = [
        RunningRequest(request=f"run_{number}", credential="c1", started_at=NOW - 3, **fields)  # type: ignore[arg-type]
        for number in range(1, running + 1)
    ]
    status = PoolStatus("default", queue_depth={"interactive": waiting, "batch": 0})
    queue = PoolQueue(status, {"interactive": 65.0, "batch": None}, 0.5, 90.0, line, [], [])
    credentials = [Account(f"c{number}", "first", "default", "active") for number in range(1, accounts + 1)]
    return LiveView(NOW, [queue], started, credentials, Tape(0, 120, {"c1": 119 * "i" + "b"}))


def test_everything_is_shown_where_there_is_room():
    text = "\n".join(render(build_view(), 200))
    assert "2 interactive waiting (oldest 1m05s)" in text
    assert "empty in 1m30s" in text
    assert "1     1.2s  1m05s   req_1    reader k1  m" in text
    assert "3.0s  run_1    reader k1  m      c1          default  waits for its first byte" in text
    assert f"first c1    default  active  {119 * 'i'}b" in text
    assert f"first c2    default  active  {120 * '-'}" in text


def test_latest_seconds_are_shown_in_a_narrow_terminal():
    lines = render(build_view(), 40)
    assert max(map(len, lines)) <= 40
    (row,) = [line for line in lines if line.startswith("first c1")]
    assert row == "first c1    default  active  " + 10 * "i" + "b"


@pytest.mark.parametrize("height", [12, 24, 50])
def test_long_sections_are_cut_to_the_terminals_height(height: int):
    lines = render(build_view(waiting=100, running=100, accounts=100), 100, height)
    assert len(lines) <= height
    assert any(line.endswith("more") for line in lines)
    assert any(line.startswith("TURN") for line in lines)


def test_room_that_one_section_does_not_need_goes_to_the_next():
    lines = render(build_view(waiting=0, running=1, accounts=100), 100, 40)
    assert len(lines) == 40
    assert "… 68 more" in lines


def test_names_can_not_command_the_terminal():
    text = "\n".join(render(build_view(key_name="\x1b[2J\n", model="\x9b31m\r"), 200))
    assert text.replace("\n", "").isprintable()


def test_empty_farm_has_no_tables():
    assert len(render(build_view(0, 0, 0), 200)) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (-1, "0.0s"), (59.94, "59.9s"), (61, "1m01s"), (3600, "1h00m"), (90_061, "25h01m")],
)
def test_times_are_short(seconds: float | None, text: str):
    assert format_seconds(seconds) == text
