"""What comes in for one greenlet: who waits is woken, or wakes when its time is up."""

import time

import gevent

from web.reply.batch_queue import BatchQueue


def woken_early(arrivals: BatchQueue[int], timeout: float) -> None:
    """A wait that would have lasted longer: its timer runs on."""
    taker = gevent.spawn(arrivals.take, timeout)
    gevent.idle()
    arrivals.put(1)
    assert taker.get(timeout=5) == [1]


def test_what_is_there_is_taken_at_once_and_in_order():
    arrivals: BatchQueue[int] = BatchQueue()
    arrivals.put(1)
    arrivals.put(2)
    assert arrivals.take(10) == [1, 2]
    assert arrivals.take(0) == []


def test_who_waits_is_woken_with_all_that_has_come_until_it_runs():
    arrivals: BatchQueue[int] = BatchQueue()
    taker = gevent.spawn(arrivals.take, 10)
    gevent.idle()
    arrivals.put(1)
    arrivals.put(2)
    assert taker.get(timeout=5) == [1, 2]
    arrivals.close()


def test_each_wait_ends_at_its_own_time_over_one_timer():
    arrivals: BatchQueue[int] = BatchQueue()
    waits: list[tuple[float, list[int]]] = []

    def take(timeout: float) -> None:
        began = time.monotonic()
        waits.append((timeout, arrivals.take(timeout)))
        assert time.monotonic() - began >= timeout - 0.005

    for timeout in (0.05, 0.1, 0.02):
        with gevent.Timeout(5):
            take(timeout)
    assert waits == [(0.05, []), (0.1, []), (0.02, [])]
    arrivals.close()


def test_a_timer_of_an_earlier_wait_ends_no_later_one():
    arrivals: BatchQueue[int] = BatchQueue()
    woken_early(arrivals, 0.05)
    second = gevent.spawn(arrivals.take, 10)
    gevent.sleep(0.2)
    assert not second.ready()
    arrivals.put(2)
    assert second.get(timeout=5) == [2]
    arrivals.close()


def test_a_shorter_wait_is_not_held_up_by_the_timer_of_a_longer_one():
    arrivals: BatchQueue[int] = BatchQueue()
    woken_early(arrivals, 60)
    with gevent.Timeout(5):
        assert arrivals.take(0.01) == []
    arrivals.close()


def test_one_that_was_killed_while_it_waited_leaves_nothing_behind():
    arrivals: BatchQueue[int] = BatchQueue()
    taker = gevent.spawn(arrivals.take, 10)
    gevent.idle()
    taker.kill()
    arrivals.put(1)
    gevent.idle()
    assert arrivals.take(1) == [1]
    arrivals.close()
