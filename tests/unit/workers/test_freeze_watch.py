"""A machine that stands still as a whole isn't taken for a frozen process."""

import pytest

from workers import freeze_watch
from workers.freeze_watch import KILL_AFTER_SECONDS, FreezeWatch


class Slot:
    """A process that records its signals, and beats when it is told to."""

    def __init__(self) -> None:
        self.pid = 7
        self.beat_count = 1
        self.signals: list[str] = []

    def send_signal(self, signum: int) -> None:
        self.signals.append(freeze_watch.signal.Signals(signum).name)


class WatchedSlot:
    """A slot, its watch, and the clock by which the watch goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(freeze_watch, "monotonic", lambda: self.now)
        self.slot = Slot()
        self.watch = FreezeWatch(self.slot, "it")  # type: ignore[arg-type]

    def look(self, *, count: int = 1, step: float = 0.05) -> list[str]:
        """The signals so far, after so many looks, `step` seconds apart."""
        for _ in range(count):
            self.now += step
            self.watch.look()
        return self.slot.signals


LOOKS_UNTIL_KILLED = int(KILL_AFTER_SECONDS / 0.05) + 2


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> WatchedSlot:
    return WatchedSlot(monkeypatch)


def test_silent_process_is_resumed_then_killed_once(watched: WatchedSlot):
    assert watched.look(count=LOOKS_UNTIL_KILLED // 2) == ["SIGCONT"]
    assert watched.look(count=2 * LOOKS_UNTIL_KILLED) == ["SIGCONT", "SIGKILL"]


def test_beat_ends_the_silence(watched: WatchedSlot):
    for _ in range(100):
        watched.slot.beat_count = (watched.slot.beat_count + 1) % 256
        assert watched.look(count=20) == []


def test_time_in_which_the_watch_has_not_run_either_does_not_count(watched: WatchedSlot):
    assert watched.look(count=10, step=60.0) == []


def test_successor_has_its_own_time_from_its_start(watched: WatchedSlot):
    watched.look(count=LOOKS_UNTIL_KILLED - 5)
    watched.slot.pid, watched.slot.signals = 0, []
    assert watched.look(count=2 * LOOKS_UNTIL_KILLED) == []
    watched.slot.pid = 8
    assert watched.look(count=20) == []
