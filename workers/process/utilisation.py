"""Measures the share of their time that workers spend on jobs."""

import time
from collections.abc import Mapping, Sequence

from workers.worker.rq_worker import FarmWorker

#: Seconds over which the utilisation is averaged; a window ends with the first measurement after so long.
WINDOW_SECONDS = 10.0


class UtilisationMeter:
    """The utilisation of each configured pool in this process."""

    def __init__(self, pools: Sequence[str]) -> None:
        self._pools = pools
        self._window_started_at = time.monotonic()
        #: Pool -> busy seconds of its workers when the window started.
        self._seconds_at_start = dict.fromkeys(pools, 0.0)
        #: Pool -> busy seconds of workers that have ended.
        self._ended_seconds = dict.fromkeys(pools, 0.0)
        self._utilisation: dict[str, float] = {}

    def record_ended(self, worker: FarmWorker) -> None:
        """Keeps the busy seconds of a worker that has ended."""
        if worker.lease.pool in self._ended_seconds:
            self._ended_seconds[worker.lease.pool] += worker.runner.seconds_worked()

    def measure(self, workers_by_pool: Mapping[str, Sequence[FarmWorker]]) -> Mapping[str, float]:
        """Pool -> busy share of its workers' time, 0 to 1, in the last window that has ended."""
        elapsed = time.monotonic() - self._window_started_at
        if elapsed < WINDOW_SECONDS and self._utilisation:
            return self._utilisation
        for pool in self._pools:
            workers = workers_by_pool.get(pool, ())
            seconds = self._ended_seconds[pool] + sum(worker.runner.seconds_worked() for worker in workers)
            gained = seconds - self._seconds_at_start[pool]
            self._utilisation[pool] = min(1.0, gained / (elapsed * len(workers))) if workers and elapsed else 0.0
            self._seconds_at_start[pool] = seconds
        self._window_started_at = time.monotonic()
        return self._utilisation
