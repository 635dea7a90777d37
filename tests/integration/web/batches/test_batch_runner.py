"""A front runs a bounded number of batches; none of them keeps others waiting that could get on."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from shared import keys
from shared.api_keys.store import ApiKeys
from tests.integration.harness import WorkerHarness
from tests.integration.web.batches.batch_harness import BatchHarness, build_lines
from tests.integration.web.batches.conftest import StartFront
from tests.upstream import Upstream
from tests.waiting import eventually
from web.batches import batch_runner
from web.batches.batch_run import BatchRun
from web.batches.line_window import LineWindow

StartWorkers = Callable[..., WorkerHarness]


@pytest.fixture
def front(start_front: StartFront, monkeypatch: pytest.MonkeyPatch) -> BatchHarness:
    """One that runs two batches at a time."""
    monkeypatch.setattr(batch_runner, "MAX_RUNS", 2)
    front = start_front()
    front.start()
    return front


def set_enabled(front: BatchHarness, *, enabled: bool) -> None:
    ApiKeys(front.redis).update(front.key.id, {"enabled": enabled})


def test_batches_that_do_not_get_on_make_room(
    front: BatchHarness, start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    """Those of a disabled key wait for it, and take turns."""
    monkeypatch.setattr(batch_runner, "STALLED_SECONDS", 0.5)
    start_harness(credentials=2)
    set_enabled(front, enabled=False)
    paused = [front.create(build_lines(2)) for _ in range(4)]
    other = start_front()

    assert front.wait_for_end(other.create(build_lines(3))).completed == 3
    eventually(lambda: all(front.get(batch).status == "in_progress" for batch in paused))

    set_enabled(front, enabled=True)
    assert [front.wait_for_end(batch).completed for batch in paused] == [2] * 4


def test_batches_of_one_key_leave_room_for_those_of_others(
    front: BatchHarness, start_front: StartFront, monkeypatch: pytest.MonkeyPatch
):
    """Whether they get on or not, and however many wait that are older."""
    taken, take = list[str](), front.batches.leases.take

    def note_and_take(*args: Any) -> list[str]:
        taken.extend(found := take(*args))
        return found

    monkeypatch.setattr(front.batches.leases, "take", note_and_take)
    first = [front.create(build_lines(2)) for _ in range(3)]
    eventually(lambda: front.get(first[1]).status == "in_progress")
    others = [start_front() for _ in range(2)]
    second, third = (other.create(build_lines(2)) for other in others)
    eventually(lambda: front.get(second).status == "in_progress")
    front.batches.store.cancel(second.id)
    eventually(lambda: front.get(third).status == "in_progress")
    assert taken == [first[0].id, first[1].id, second.id, third.id]


def test_no_more_batches_make_room_than_have_to(
    front: BatchHarness, start_front: StartFront, monkeypatch: pytest.MonkeyPatch
):
    """One that has been stopped keeps its place until its lines have ended."""
    monkeypatch.setattr(batch_runner, "MAX_RUNS", 3)
    stopped, looks, released = list[BatchRun](), list[Any](), Event()
    stop, exchange = BatchRun.stop, front.batches.headroom.exchange
    monkeypatch.setattr(BatchRun, "stop", lambda run: stopped.append(run) or stop(run))
    monkeypatch.setattr(LineWindow, "join", lambda _: released.wait(30))
    for batch in [front.create(build_lines(2)) for _ in range(3)]:
        eventually(lambda batch=batch: front.get(batch).status == "in_progress")
    waiting = start_front().create(build_lines(2))
    eventually(lambda: stopped)
    monkeypatch.setattr(front.batches.headroom, "exchange", lambda own: looks.append(own) or exchange(own))
    eventually(lambda: len(looks) > 3)
    assert len(stopped) == 1
    released.set()
    eventually(lambda: front.get(waiting).status == "in_progress")


def test_a_front_is_stopped_although_redis_does_not_reply(front: BatchHarness, monkeypatch: pytest.MonkeyPatch):
    batches, released, give_up = [front.create(build_lines(2)) for _ in range(2)], Event(), front.batches.leases.give_up

    def give_up_late(*args: Any) -> None:
        released.wait()
        give_up(*args)

    monkeypatch.setattr(front.batches.leases, "give_up", give_up_late)
    for batch in batches:
        eventually(lambda batch=batch: front.get(batch).status == "in_progress")
    try:
        gevent.spawn(front.runner.stop).get(timeout=10)
    finally:
        released.set()
    eventually(lambda: not any(front.redis.exists(keys.batch_lease(batch.id)) for batch in batches))


def test_a_batch_whose_run_fails_unexpectedly_is_left_alone_for_a_while(
    front: BatchHarness, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_runner, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(batch_runner, "FAILED_PAUSE_SECONDS", 0.5)
    start_harness()
    tries, run = list[float](), BatchRun.run

    def fail_first(batch_run: BatchRun) -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise RuntimeError("a fault of the farm")
        run(batch_run)

    monkeypatch.setattr(BatchRun, "run", fail_first)
    assert front.wait_for_end(front.create(build_lines(1))).completed == 1
    assert len(tries) == 3 and all(after - before >= 0.5 for before, after in itertools.pairwise(tries))


def test_a_batch_that_waits_for_its_turn_is_cancelled_at_once(front: BatchHarness):
    set_enabled(front, enabled=False)
    batches = [front.create(build_lines(2)) for _ in range(3)]
    eventually(lambda: front.get(batches[1]).status == "in_progress")
    front.batches.store.cancel(batches[2].id)
    assert front.wait_for_end(batches[2]).status == "cancelled"
    assert all(front.get(batch).is_unfinished for batch in batches[:2])


def test_a_batch_keeps_its_turn_while_none_waits(front: BatchHarness, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_runner, "STALLED_SECONDS", 0.0)
    stopped, looks, stop = [], [], BatchRun.stop
    monkeypatch.setattr(BatchRun, "stop", lambda run: stopped.append(run) or stop(run))
    exchange = front.batches.headroom.exchange
    monkeypatch.setattr(front.batches.headroom, "exchange", lambda own: looks.append(own) or exchange(own))
    set_enabled(front, enabled=False)
    for batch in [front.create(build_lines(2)) for _ in range(2)]:
        eventually(lambda batch=batch: front.get(batch).status == "in_progress")
    count = len(looks)
    eventually(lambda: len(looks) > count + 3)
    assert stopped == []
    # A third one has its turn then.
    waiting = front.create(build_lines(2))
    eventually(lambda: front.redis.exists(keys.batch_lease(waiting.id)))
    assert stopped


def test_a_batch_whose_last_line_hangs_is_stopped_once(
    front: BatchHarness,
    start_front: StartFront,
    start_harness: StartWorkers,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
):
    """It keeps its place until that has ended, so another one has to make room."""
    monkeypatch.setattr(batch_runner, "STALLED_SECONDS", 0.2)
    start_harness(first_byte_timeout=60.0)
    upstream.faults(hang_headers=1)
    hanging = front.create(build_lines(1))
    eventually(lambda: front.get(hanging).last_line == 1)
    other = start_front()
    set_enabled(other, enabled=False)
    paused = other.create(build_lines(1))
    eventually(lambda: front.get(paused).status == "in_progress")
    waiting = front.create(build_lines(1))
    eventually(lambda: front.redis.exists(keys.batch_lease(waiting.id)))
    front.batches.store.cancel(hanging.id)


def test_a_batch_gets_on_with_the_end_of_each_line(start_front: StartFront):
    front = start_front()
    batch = front.create(build_lines(3), status="in_progress", total=3)
    front.batches.leases.hold(batch.id, front.batches.front_id)
    run = BatchRun(front.batches, batch.id, lambda _: 1)
    running = gevent.spawn(run.run)
    since = eventually(lambda: run.stalled_since)
    front.redis.hset(keys.batch(batch.id), "completed", 1)
    eventually(lambda: run.stalled_since > since)
    run.stop()
    running.get(timeout=30)
