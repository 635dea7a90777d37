"""A run of another front is asked for again while it is read."""

from types import SimpleNamespace
from typing import Any

import pytest

from shared import clock
from shared.protocol.messages import Frame, FrameKind, Head
from web.replay import run_export
from web.replay.answers.answer_store import OtherRun, Share
from web.replay.other_front_run import OtherFrontRun
from web.replay.shared_run import KeptBytes, SharedRun

HEAD = Frame(FrameKind.HEAD, 0, Head(200).encode())
CHUNKS = [Frame(FrameKind.DATA, number, b"x") for number in range(1, 9)]
END = Frame(FrameKind.END, 9, b"")


class Exchange:
    """Exports of another front, that have something at each look."""

    def __init__(self) -> None:
        self.frames = [HEAD, *CHUNKS, END]
        self.asked = 0

    def open_reader(self, run_id: str, name: str, key: bytes) -> Any:
        return SimpleNamespace(read=lambda: [self.frames.pop(0)])

    def ask(self, run_id: str, front: str, name: str) -> None:
        self.asked += 1

    def close_reader(self, run_id: str, front: str) -> None:
        pass


@pytest.mark.parametrize(("seconds", "asked"), [(0.0, 10), (60.0, 1)])
def test_export_is_kept_alive_although_there_is_always_more_to_read(
    monkeypatch: pytest.MonkeyPatch, seconds: float, asked: int
):
    monkeypatch.setattr(run_export, "POLL_SECONDS", seconds)
    share, exchange = Share("n", b"k"), Exchange()
    run = SharedRun("r", [share], KeptBytes(), drains=True)
    store: Any = SimpleNamespace(is_running=lambda _: True)
    source: Any = exchange
    other_run = OtherFrontRun(store, source, run, OtherRun(share, "there", "r"))
    request: Any = SimpleNamespace(deadline=clock.now() + 60)
    assert not other_run.follow(request)
    assert run.is_whole
    assert exchange.asked == asked
