"""Independent tasks run side by side, a bounded number at a time."""

import gevent
import pytest
from gevent.event import Event

from workers.parallel import MAX_PARALLEL_TASKS, run_in_parallel


def test_tasks_wait_side_by_side_and_are_all_done_in_the_end():
    everybody_waits, waiting, done = Event(), [], []

    def run(number: int) -> None:
        waiting.append(number)
        if len(waiting) == MAX_PARALLEL_TASKS:
            everybody_waits.set()
        assert everybody_waits.wait(30)
        done.append(number)

    run_in_parallel([lambda number=number: run(number) for number in range(2 * MAX_PARALLEL_TASKS)])
    assert sorted(done) == list(range(2 * MAX_PARALLEL_TASKS))


def test_no_more_tasks_run_than_there_are_connections():
    running, most = [0], [0]

    def run() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gevent.sleep(0)
        running[0] -= 1

    run_in_parallel([run] * (4 * MAX_PARALLEL_TASKS))
    assert most == [MAX_PARALLEL_TASKS]


def test_failure_of_one_is_raised_once_the_others_are_done():
    done: list[int] = []

    def fail() -> None:
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        run_in_parallel([fail, *(lambda number=number: done.append(number) for number in range(3))])
    assert done == [0, 1, 2]
