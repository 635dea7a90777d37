import time

import gevent
import pytest

from workers.attempt.cancel_scope import Interrupted, Section, Watch


def test_a_section_that_waits_is_ended_with_its_reason():
    section = Section(Watch())

    def work() -> str:
        try:
            with section:
                gevent.sleep(10)
        except Interrupted as interruption:
            return interruption.reason
        return "not interrupted"

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert section.interrupt("client_gone")
    assert greenlet.get(timeout=1) == "client_gone"


def test_what_comes_after_the_section_is_never_hit():
    section = Section(Watch())
    with section:
        section.interrupt("client_gone")
    gevent.sleep(0.01)
    assert not section.interrupt("again")


def test_a_section_is_ended_once_only():
    section = Section(Watch())

    def work() -> None:
        with pytest.raises(Interrupted), section:
            gevent.sleep(10)
        gevent.sleep(0.01)

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert section.interrupt("one")
    assert not section.interrupt("two")
    greenlet.get(timeout=1)


@pytest.mark.parametrize(("idle", "total", "reason"), [(0.0, 99.0, "idle_timeout"), (99.0, 0.0, "total_timeout")])
def test_a_deadline_that_passes_ends_the_section(idle: float, total: float, reason: str):
    watch = Watch()
    section = Section(watch)

    def work() -> str:
        try:
            with section:
                section.expect("idle_timeout", idle)
                section.total = time.monotonic() + total
                gevent.sleep(10)
        except Interrupted as interruption:
            return interruption.reason
        return "not interrupted"

    greenlet = gevent.spawn(work)
    watcher = gevent.spawn(watch.run)
    assert greenlet.get(timeout=3) == reason
    watcher.kill()


def test_one_who_was_frozen_sees_that_the_lease_is_lost_before_going_on():
    holds = [True, False]
    section = Section(Watch(), lambda: holds.pop(0))
    section.look_at_lease()
    with pytest.raises(Interrupted) as found:
        section.look_at_lease()
    assert found.value.reason == "lease_lost"
