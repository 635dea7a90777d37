"""Breaks something in a thread while the load runs."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.farm import MeasuredFarm

#: Lifetime of a worker's lease (workers.credentials.leases.LEASE_SECONDS).
LEASE_SECONDS = 16.0


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Runs the work in a thread and joins it at the end; an exception of the work is raised there.

    If the block is left by an exception, nobody waits for the work.
    """
    failures: list[Exception] = []

    def run_guarded() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run_guarded, daemon=True)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def kill_random_worker_process(farm: MeasuredFarm, draw: random.Random) -> None:
    """kill -9 of one worker process."""
    draw.choice(farm.list_children("-m workers")).kill()
