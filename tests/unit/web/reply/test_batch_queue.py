"""A greenlet takes all items at once, or wakes when its timeout expires."""

import time

import gevent

from web.reply.batch_queue import BatchQueue


def take_before_timeout(queue: BatchQueue[int], timeout: float) -> None:
    """Takes an item before the timeout expires, so that the timer of that wait is still running."""
    waiter = gevent.spawn(queue.take, timeout)
    gevent.idle()
    queue.put(1)
    assert waiter.get(timeout=30) == [1]


def test_items_are_taken_at_once_in_order():
    queue: BatchQueue[int] = BatchQueue()
    queue.put(1)
    queue.put(2)
    assert queue.take(10) == [1, 2]
    assert queue.take(0) == []


def test_waiter_gets_all_items_put_before_it_runs():
    queue: BatchQueue[int] = BatchQueue()
    waiter = gevent.spawn(queue.take, 10)
    gevent.idle()
    queue.put(1)
    queue.put(2)
    assert waiter.get(timeout=30) == [1, 2]
    queue.close()


def test_timeouts_of_consecutive_waits_share_one_timer():
    queue: BatchQueue[int] = BatchQueue()
    waits: list[tuple[float, list[int]]] = []

    def take(timeout: float) -> None:
        started_at = time.monotonic()
        waits.append((timeout, queue.take(timeout)))
        assert time.monotonic() - started_at >= timeout - 0.005

    for timeout in (0.05, 0.1, 0.02):
        with gevent.Timeout(5):
            take(timeout)
    assert waits == [(0.05, []), (0.1, []), (0.02, [])]
    queue.close()


def test_timer_of_an_earlier_wait_does_not_end_a_later_one():
    queue: BatchQueue[int] = BatchQueue()
    take_before_timeout(queue, 0.05)
    second = gevent.spawn(queue.take, 10)
    gevent.sleep(0.2)
    assert not second.ready()
    queue.put(2)
    assert second.get(timeout=30) == [2]
    queue.close()


def test_shorter_wait_is_not_delayed_by_the_timer_of_a_longer_one():
    queue: BatchQueue[int] = BatchQueue()
    take_before_timeout(queue, 60)
    with gevent.Timeout(5):
        assert queue.take(0.01) == []
    queue.close()


def test_killed_waiter_does_not_take_later_items():
    queue: BatchQueue[int] = BatchQueue()
    waiter = gevent.spawn(queue.take, 10)
    gevent.idle()
    waiter.kill()
    queue.put(1)
    gevent.idle()
    assert queue.take(1) == [1]
    queue.close()
