"""Which lines a front begins, takes over, and keeps in flight. No worker takes them."""

from typing import Any

import gevent
import pytest
from gevent.lock import BoundedSemaphore
from redis import Redis

from shared import clock, keys
from shared.batches.running_line import NOBODY, RunningLine, begin_run
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from tests.integration.web.batches.batch_harness import BatchHarness, build_line, build_lines
from tests.integration.web.batches.conftest import StartFront
from tests.waiting import eventually
from web.batches import validation
from web.batches.batch_lease import BatchLease
from web.batches.input_cursor import InputCursor
from web.batches.line_window import LineWindow
from web.batches.orphans import find_orphans
from web.request.body_memory import UNRESERVED_BYTES


class Window(LineWindow):
    """The window of a batch of five lines, and what it is filled with."""

    def __init__(self, front: BatchHarness) -> None:
        self.front = front
        self.lines = front.batches.lines
        self.batch = front.create(build_lines(5), status="in_progress", total=5)
        self.id = self.batch.id
        front.batches.leases.hold(self.id, front.batches.front_id)
        lease = BatchLease(front.batches.leases, self.id, front.batches.front_id)
        super().__init__(front.batches, lease, InputCursor(front.batches), lambda: front.key, lambda: None)

    def begin(self, size: int, orphans: dict[int, RunningLine] | None = None) -> list[int]:
        """Returns the lines in flight."""
        record = self.front.batches.find_input(self.batch)
        self.fill(self.batch, record, {} if orphans is None else orphans, size)
        return [number for number in range(1, 6) if number in self]

    def count_waiting(self) -> int:
        return int(self.front.redis.llen("rq:queue:batch:default"))


@pytest.fixture
def front(start_front: StartFront, unsealer: Unsealer, redis: Redis) -> BatchHarness:
    Credentials(redis).add("default", "token")
    return start_front()


@pytest.fixture
def window(front: BatchHarness) -> Any:
    window = Window(front)
    yield window
    window.kill()


def test_lines_begin_up_to_a_number(window: Window):
    assert window.begin(2) == [1, 2] and window.begin(3) == [1, 2, 3]
    eventually(lambda: window.count_waiting() == 3)
    window.kill()
    assert window.count_waiting() == 0


def test_a_line_that_could_not_begin_is_not_skipped(window: Window, redis: Redis):
    """As when the lease has expired, and is taken again."""
    assert window.begin(1) == [1]
    redis.set(keys.batch_lease(window.id), "another")
    assert window.begin(2) == [1]
    redis.set(keys.batch_lease(window.id), window.front.batches.front_id)
    assert window.begin(3) == [1, 2, 3]


def test_a_line_is_taken_over_from_an_earlier_run_here(window: Window):
    window.begin(2)
    eventually(lambda: window.count_waiting() == 2)
    former = window.list_runs()[0]
    assert window.begin(3, {1: former.running}) == [1, 2, 3]
    eventually(lambda: window.count_waiting() == 3)
    gevent.idle()
    assert len(window) == 3 and former not in window.list_runs()
    assert window.lines.read_running(window.id)[1] != former.running
    window.kill()
    eventually(lambda: window.count_waiting() == 0)


def test_a_line_that_others_have_taken_over_is_left_to_them(window: Window):
    window.begin(1)
    window.kill()
    assert window.begin(1, {1: begin_run("another", clock.now(), 0, 10)}) == [2]


def test_orphans_are_lines_that_nobody_runs(front: BatchHarness, window: Window, redis: Redis):
    own, now = front.batches.front_id, clock.now()
    redis.zadd(keys.FRONTS, {own: now, "alive": now, "dead": now})
    redis.set(keys.front_gone("dead"), 1)
    late = now - front.batches.max_run - 1
    runs = [
        begin_run(own, now, 0, 1),
        begin_run(own, now, 0, 1),
        begin_run("alive", now, 0, 1),
        begin_run("dead", now, 0, 1),
        begin_run(NOBODY, now, 0, 1),
        begin_run("alive", late, 0, 1),
        begin_run(own, late, 0, 1),
    ]
    redis.hset(keys.batch_running(window.id), mapping={n: run.encode() for n, run in enumerate(runs, 1)})
    assert sorted(find_orphans(front.batches, window.id, {1, 7})) == [2, 4, 5, 6, 7]


def test_a_long_line_is_not_kept_when_it_is_found(front: BatchHarness):
    """It is read again once there is memory for it."""
    batch = front.create(build_line("short") + build_line("long", pad="x" * UNRESERVED_BYTES))
    cursor = InputCursor(front.batches)
    cursor.open(batch, front.batches.find_input(batch))
    assert [bool(line and line.data) for line in (cursor.read_next(), cursor.read_next())] == [True, False]
    assert cursor.read_next() is None and cursor.is_exhausted


def test_large_inputs_are_validated_in_turns(front: BatchHarness, monkeypatch: pytest.MonkeyPatch):
    """A line of any length is held in memory meanwhile."""
    turns = BoundedSemaphore(1)
    monkeypatch.setattr(validation, "large_inputs", turns)
    monkeypatch.setattr(validation, "SMALL_BYTES", len(build_lines(1)))
    turns.acquire()
    front.start()
    large, small = front.create(build_lines(2)), front.create(build_lines(1))
    eventually(lambda: front.get(small).status == "in_progress")
    assert front.get(large).status == "validating"
    turns.release()
    eventually(lambda: front.get(large).status == "in_progress")


def test_large_inputs_of_cancelled_batches_are_read_in_turns(front: BatchHarness, monkeypatch: pytest.MonkeyPatch):
    turns = BoundedSemaphore(1)
    batch = front.create(build_lines(2), status="cancelling", total=2)
    monkeypatch.setattr(validation, "large_inputs", turns)
    monkeypatch.setattr(validation, "SMALL_BYTES", 0)
    turns.acquire()
    front.start()
    eventually(turns.linkcount)
    assert front.get(batch).failed == 0
    turns.release()
    assert front.wait_for_end(batch).failed == 2
