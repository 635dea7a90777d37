import time

import gevent
import pytest

from workers.attempt.cancel_scope import Cancelled, CancelScope, DeadlineMonitor


def test_a_section_that_waits_is_ended_with_its_reason():
    section = CancelScope(DeadlineMonitor())

    def work() -> str:
        try:
            with section:
                gevent.sleep(10)
        except Cancelled as interruption:
            return interruption.reason
        return "not interrupted"

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert section.cancel("client_gone")
    assert greenlet.get(timeout=1) == "client_gone"


def test_what_comes_after_the_section_is_never_hit():
    section = CancelScope(DeadlineMonitor())
    with section:
        section.cancel("client_gone")
    gevent.sleep(0.01)
    assert not section.cancel("again")


def test_a_section_is_ended_once_only():
    section = CancelScope(DeadlineMonitor())

    def work() -> None:
        with pytest.raises(Cancelled), section:
            gevent.sleep(10)
        gevent.sleep(0.01)

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert section.cancel("one")
    assert not section.cancel("two")
    greenlet.get(timeout=1)


@pytest.mark.parametrize(("idle", "total", "reason"), [(0.0, 99.0, "idle_timeout"), (99.0, 0.0, "total_timeout")])
def test_a_deadline_that_passes_ends_the_section(idle: float, total: float, reason: str):
    watch = DeadlineMonitor()
    section = CancelScope(watch)

    def work() -> str:
        try:
            with section:
                section.set_deadline("idle_timeout", idle)
                section.total_deadline = time.monotonic() + total
                gevent.sleep(10)
        except Cancelled as interruption:
            return interruption.reason
        return "not interrupted"

    greenlet = gevent.spawn(work)
    watcher = gevent.spawn(watch.run)
    assert greenlet.get(timeout=3) == reason
    watcher.kill()


def test_one_who_was_frozen_sees_that_the_lease_is_lost_before_going_on():
    holds = [True, False]
    section = CancelScope(DeadlineMonitor(), lambda: holds.pop(0))
    section.check_lease()
    with pytest.raises(Cancelled) as found:
        section.check_lease()
    assert found.value.reason == "lease_lost"
