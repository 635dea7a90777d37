"""Runs independent tasks side by side, so that they share the round trips to a distant Redis."""

from collections.abc import Callable, Iterable

from gevent.pool import Pool

#: Tasks at a time: as many as a pool of connections serves.
MAX_PARALLEL_TASKS = 16


def run_in_parallel(tasks: Iterable[Callable[[], object]]) -> None:
    """Runs the tasks in greenlets, a bounded number at a time. Once all have ended, raises the first error if any."""
    errors: list[Exception] = []

    def run(task: Callable[[], object]) -> None:
        try:
            task()
        except Exception as error:
            errors.append(error)

    pool = Pool(MAX_PARALLEL_TASKS)
    try:
        for task in tasks:
            pool.spawn(run, task)
        pool.join()
    finally:
        pool.kill()
    if errors:
        raise errors[0]
