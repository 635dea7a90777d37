"""Runs the batches that this front finds unfinished and without a front."""

import logging
import time
from collections import Counter
from collections.abc import Mapping

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
#: Seconds without the end of a line after which a batch gives its place to one that waits.
STALLED_SECONDS = 60.0
#: Seconds for which this front leaves a batch alone whose run has failed unexpectedly.
FAILED_PAUSE_SECONDS = 60.0


class BatchRunner:
    """Called from one event loop."""

    def __init__(self, services: BatchServices) -> None:
        self._services = services
        self._runs: dict[str, BatchRun] = {}
        #: Batches that have given up their place -> when (monotonic).
        self._yielded: dict[str, float] = {}
        #: Batches whose run has failed unexpectedly -> until when they are left alone (monotonic).
        self._paused: dict[str, float] = {}
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
        """Takes unfinished batches that no front has, those first whose key has none here, and that had no turn."""
        front_id = self._services.front_id
        active = self._services.store.list_active()
        self._yielded = {batch_id: at for batch_id, at in self._yielded.items() if batch_id in active}
        now = time.monotonic()
        self._paused = {batch_id: until for batch_id, until in self._paused.items() if until > now}
        others = [batch_id for batch_id in active if batch_id not in self._runs and batch_id not in self._paused]
        # Beyond the places of a front it matters whose they are.
        keys = self._services.store.read_keys(active) if len(active) > MAX_RUNS else {}
        running = {keys.get(batch_id, "") for batch_id in self._list_staying()}
        others.sort(key=lambda batch_id: (keys.get(batch_id, "") in running, self._yielded.get(batch_id, 0.0)))
        for batch_id in self._services.leases.take(others, front_id, MAX_RUNS - len(self._runs)):
            self._start(batch_id)
        if len(self._runs) >= MAX_RUNS:
            self._make_room([batch_id for batch_id in others if batch_id not in self._runs], keys)
        if active:
            self._services.headroom.exchange(self._count_own())

    def _make_room(self, others: list[str], keys: Mapping[str, str]) -> None:
        """Ends what is cancelled, which takes seconds; stops batches that don't get on, or crowd out those that wait.

        `keys`: the API key of each batch.
        """
        leases, front_id = self._services.leases, self._services.front_id
        waiting = list(leases.find_free(others, front_id))
        for batch_id in leases.take(self._services.store.find_cancelling(waiting), front_id, len(waiting)):
            self._start(batch_id)
        now = time.monotonic()
        stalled = [
            batch_id
            for batch_id, run in self._runs.items()
            if run.stalled_since is not None and now - run.stalled_since >= STALLED_SECONDS
        ]
        crowding = self._find_crowding([batch_id for batch_id in waiting if batch_id not in self._runs], keys)
        for batch_id in [*dict.fromkeys(stalled + crowding)][: len(waiting)]:
            self._runs[batch_id].stop()
            self._yielded[batch_id] = now

    def _find_crowding(self, waiting: list[str], keys: Mapping[str, str]) -> list[str]:
        """The latest batches of keys that run the most, as many as other keys wait of which none runs."""
        staying = self._list_staying()
        running = Counter(keys.get(batch_id, "") for batch_id in staying)
        missing = {keys.get(batch_id, "") for batch_id in waiting} - running.keys()
        crowding = list[str]()
        # Those that have been stopped make room as soon as their lines have ended.
        while running and len(crowding) < len(missing) - (len(self._runs) - len(staying)):
            key, count = running.most_common(1)[0]
            if count < 2:
                break
            running[key] -= 1
            crowding.append([batch_id for batch_id in staying if keys.get(batch_id, "") == key][running[key]])
        return crowding

    def _list_staying(self) -> list[str]:
        """The batches that are run here, without those that have been stopped."""
        return [batch_id for batch_id, run in self._runs.items() if not run.is_stopped]

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
            self._paused[batch_id] = time.monotonic() + FAILED_PAUSE_SECONDS
        finally:
            del self._runs[batch_id]
