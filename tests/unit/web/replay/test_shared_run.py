"""A run keeps its answer within bounds, and waits for slow callers only when it keeps it for nobody else."""

import gevent
import pytest

from shared.errors import ApiError
from shared.protocol.messages import Frame, FrameKind, Head
from web.replay import shared_run
from web.replay.answers.answer_store import Share
from web.replay.shared_run import KeptBytes, SharedRun

HEAD = Frame(FrameKind.HEAD, 0, Head(200).encode())
END = Frame(FrameKind.END, 9)


def data(size: int) -> Frame:
    return Frame(FrameKind.DATA, 1, b"x" * size)


class Reader:
    """Follows a run without reading."""

    def __init__(self, run: SharedRun) -> None:
        self.frames: list[Frame] = []
        self.unread_bytes = 0
        run.add(self)

    def put(self, frames: list[Frame]) -> None:
        self.frames += frames
        self.unread_bytes += sum(len(frame.payload) for frame in frames)


@pytest.fixture
def kept_bytes(monkeypatch: pytest.MonkeyPatch) -> KeptBytes:
    monkeypatch.setattr(shared_run, "MAX_ANSWER_BYTES", 1000)
    monkeypatch.setattr(shared_run, "MAX_TOTAL_BYTES", 1500)
    monkeypatch.setattr(shared_run, "MAX_UNREAD_BYTES", 100)
    return KeptBytes()


def start(kept_bytes: KeptBytes, *, drains: bool = False) -> tuple[SharedRun, list[str]]:
    """A run, and what it calls."""
    run, calls = SharedRun("r", [Share("n", b"")], kept_bytes, drains=drains), []
    run.is_open = True
    run.on_unkept, run.cancel = lambda: calls.append("unkept"), lambda: calls.append("cancel")
    return run, calls


def test_later_reader_gets_all_from_the_beginning(kept_bytes: KeptBytes):
    run, _ = start(kept_bytes)
    first = Reader(run)
    run.put([HEAD, data(10)])
    second = Reader(run)
    run.put([data(20), END])
    assert first.frames == second.frames == [HEAD, data(10), data(20), END]
    assert run.is_whole


def test_run_can_be_joined_until_it_fails(kept_bytes: KeptBytes):
    whole, _ = start(kept_bytes)
    failed, _ = start(kept_bytes)
    for run in (whole, failed):
        run.put([HEAD, data(10)])
        assert run.can_be_joined
    whole.put([END])
    failed.fail(ApiError(502, "upstream_error", "cut"))
    assert (whole.can_be_joined, failed.can_be_joined) == (True, False)


def test_answers_are_kept_within_the_bounds_of_one_and_of_all(kept_bytes: KeptBytes):
    first, calls = start(kept_bytes)
    reader = Reader(first)
    first.put([HEAD, data(900)])
    assert first.can_be_joined
    second, second_calls = start(kept_bytes)
    Reader(second)
    second.put([HEAD, data(700)])
    assert (second.can_be_joined, second_calls) == (False, ["unkept"])
    first.put([data(200), END])
    assert (first.can_be_joined, first.is_whole, calls) == (False, False, ["unkept"])
    assert reader.frames == [HEAD, data(900), data(200), END]
    assert kept_bytes.total == 0


def test_source_waits_for_the_slowest_reader_once_the_answer_is_kept_for_nobody(kept_bytes: KeptBytes):
    run, _ = start(kept_bytes)
    slow = Reader(run)
    run.put([HEAD, data(900)])
    run.wait_for_readers()
    run.put([data(900)])
    waiting = gevent.spawn(run.wait_for_readers)
    gevent.sleep(0)
    assert not waiting.ready()
    slow.unread_bytes = 0
    run.note_read()
    waiting.get(timeout=10)
    slow.unread_bytes = 200
    waiting = gevent.spawn(run.wait_for_readers)
    gevent.sleep(0)
    run.remove(slow)
    waiting.get(timeout=10)


def test_run_ends_with_its_last_reader_unless_it_is_drained(kept_bytes: KeptBytes):
    run, calls = start(kept_bytes)
    first, second = Reader(run), Reader(run)
    run.remove(first)
    assert calls == []
    run.remove(second)
    assert (calls, run.can_be_joined) == (["cancel"], False)
    drained, calls = start(kept_bytes, drains=True)
    drained.remove(Reader(drained))
    assert (calls, drained.can_be_joined) == ([], True)
    drained.put([HEAD, data(2000)])
    assert calls == ["unkept", "cancel"]


def test_reader_that_leaves_after_the_end_cancels_nothing(kept_bytes: KeptBytes):
    run, calls = start(kept_bytes)
    reader = Reader(run)
    run.put([HEAD, END])
    run.remove(reader)
    assert calls == []


@pytest.mark.parametrize(
    ("drains", "is_followed", "called"), [(False, False, ["cancel"]), (True, False, []), (False, True, [])]
)
def test_source_that_comes_when_nobody_follows_any_more_is_cancelled_at_once(
    kept_bytes: KeptBytes, drains: bool, is_followed: bool, called: list[str]
):
    """A source may have taken a while to find; the callers may have left meanwhile."""
    run, calls = start(kept_bytes, drains=drains)
    if is_followed:
        Reader(run)
    run.attach_source(run.cancel)
    assert calls == called
