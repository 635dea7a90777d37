"""Runs the batches that this front finds unfinished and without a front."""

import logging
from collections import Counter

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from web.batches.batch_run import BatchRun
from web.batches.services import BatchServices

log = logging.getLogger("farm.batches")
#: Seconds between two looks for unfinished batches.
LOOK_SECONDS = 2.0
#: Batches that a front runs at the same time; others wait for their turn, or for another front.
MAX_RUNS = 50


class BatchRunner:
    """Called from one event loop."""

    def __init__(self, services: BatchServices) -> None:
        self._services = services
        self._runs: dict[str, BatchRun] = {}
        self._woken = Event()
        self._is_stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether a line runs here."""
        return any(run.lines for run in self._runs.values())

    def wake(self) -> None:
        """Looks for a new batch at once."""
        self._woken.set()

    def stop(self) -> None:
        """Begins no further line, and lets other fronts go on; the lines that run here may end."""
        self._is_stopped = True
        for run in list(self._runs.values()):
            run.stop()

    def run(self) -> None:
        while not self._is_stopped:
            try:
                self._look()
            except RedisError as error:
                log.warning("can't look for batches: %s", error, extra={"action": "redis_lost"})
            self._woken.wait(LOOK_SECONDS)
            self._woken.clear()

    def _look(self) -> None:
        """Takes unfinished batches that no front has, the oldest first."""
        front_id = self._services.front_id
        active = self._services.store.list_active()
        others = [batch_id for batch_id in active if batch_id not in self._runs]
        for batch_id in self._services.leases.take(others, front_id, MAX_RUNS - len(self._runs)):
            self._start(batch_id)
        if active:
            self._services.headroom.exchange(self._count_own())

    def _count_own(self) -> Counter[str]:
        """Pool -> batches of this front that have lines to begin, and may use it."""
        return Counter(pool for run in self._runs.values() if run.wants_lines for pool in run.accounts)

    def _count_batches(self, pool: str) -> int:
        return self._services.headroom.count_batches(pool, self._count_own()[pool])

    def _start(self, batch_id: str) -> None:
        run = BatchRun(self._services, batch_id, self._count_batches)
        self._runs[batch_id] = run
        if self._is_stopped:
            run.stop()
        gevent.spawn(self._work, run, batch_id)

    def _work(self, run: BatchRun, batch_id: str) -> None:
        try:
            run.run()
        except Exception:
            log.exception("batch %s failed", batch_id, extra={"action": "batch_run_failed"})
        finally:
            del self._runs[batch_id]
