"""A cancel scope ends the code inside it with a reason, and nothing outside it."""

import time

import gevent
import pytest

from workers.attempt.cancel_scope import Cancelled, CancelScope, DeadlineMonitor


def test_cancel_ends_a_waiting_scope_with_its_reason():
    scope = CancelScope(DeadlineMonitor())

    def work() -> str:
        try:
            with scope:
                gevent.sleep(10)
        except Cancelled as cancelled:
            return cancelled.reason
        return "not cancelled"

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert scope.cancel("client_gone")
    assert greenlet.get(timeout=30) == "client_gone"


def test_cancel_never_hits_code_after_the_scope():
    scope = CancelScope(DeadlineMonitor())
    with scope:
        scope.cancel("client_gone")
    gevent.sleep(0.01)
    assert not scope.cancel("again")


def test_scope_is_cancelled_only_once():
    scope = CancelScope(DeadlineMonitor())

    def work() -> None:
        with pytest.raises(Cancelled), scope:
            gevent.sleep(10)
        gevent.sleep(0.01)

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    assert scope.cancel("one")
    assert not scope.cancel("two")
    greenlet.get(timeout=30)


@pytest.mark.parametrize(("idle", "total", "reason"), [(0.0, 99.0, "idle_timeout"), (99.0, 0.0, "total_timeout")])
def test_passed_deadline_cancels_the_scope(idle: float, total: float, reason: str):
    monitor = DeadlineMonitor()
    scope = CancelScope(monitor)

    def work() -> str:
        try:
            with scope:
                scope.set_deadline("idle_timeout", idle)
                scope.total_deadline = time.monotonic() + total
                gevent.sleep(10)
        except Cancelled as cancelled:
            return cancelled.reason
        return "not cancelled"

    greenlet = gevent.spawn(work)
    monitor_greenlet = gevent.spawn(monitor.run)
    assert greenlet.get(timeout=30) == reason
    monitor_greenlet.kill()


def test_check_lease_cancels_a_scope_whose_lease_is_lost():
    is_held = [True, False]
    scope = CancelScope(DeadlineMonitor(), lambda: is_held.pop(0))
    scope.check_lease()
    with pytest.raises(Cancelled) as caught:
        scope.check_lease()
    assert caught.value.reason == "lease_lost"
