"""Takes note, once a second, of what each worker of this process does: for the tape, and as account-seconds.

Busy time is measured, not sampled. The rest of a second counts as what the worker does at its end: one that is between
two requests while others wait is idle while somebody waited.
"""

import time
from collections.abc import Iterable

from redis import Redis

from shared import names
from shared.observability.account_time.account_hours import AccountHours
from shared.observability.counters import Counters
from shared.observability.tape import LETTERS, TapeWriter
from shared.protocol.relay_queue import queue_keys
from workers.credentials.leases import Lease
from workers.worker.rq_worker import FarmWorker

#: Share of a second from which on it is shown as busy.
BUSY_SHARE = 0.5


class Census:
    """The account-seconds of one worker process."""

    def __init__(self, redis: Redis, process_id: str, pools: Iterable[str], counters: Counters) -> None:
        self._redis = redis
        self._pools = tuple(pools)
        self._counters = counters
        self._tape = TapeWriter(process_id)
        self.hours = AccountHours(redis)
        #: RQ worker name -> its busy seconds at the last census.
        self._worked: dict[str, float] = {}
        self._taken_at = time.monotonic()

    def take(self, workers: Iterable[FarmWorker]) -> None:
        """Counts the time since the last census, and appends a column to the tape."""
        waiting = self._find_waiting()
        now = time.monotonic()
        elapsed, self._taken_at = now - self._taken_at, now
        worked, self._worked = self._worked, {}
        letters: dict[str, str] = {}
        for worker in workers:
            name, pool = worker.name, worker.lease.pool
            seconds = self._worked[name] = worker.runner.seconds_worked()
            worker.runner.count_key_seconds()
            busy = min(elapsed, max(0.0, seconds - worked.get(name, seconds)))
            state = find_state(worker, is_waited_for=pool in waiting)
            letter = "busy" if busy >= BUSY_SHARE * elapsed else state
            # Of several slots the busiest is shown.
            if letters.get(worker.lease.credential_id) != LETTERS["busy"]:
                letters[worker.lease.credential_id] = LETTERS[letter]
            if name in worked:
                if busy:
                    self._count(worker.lease, "busy", busy)
                self._count(worker.lease, state, elapsed - busy)
        with self._redis.pipeline(transaction=False) as pipe:
            self._tape.append(pipe, letters)
            pipe.execute()

    def _count(self, lease: Lease, state: str, seconds: float) -> None:
        self._counters.increment("account_seconds", names.configured_pool(lease.pool), state, amount=seconds)
        self.hours.add(lease.credential_id, state, seconds)

    def _find_waiting(self) -> set[str]:
        """The configured pools in which requests wait."""
        with self._redis.pipeline(transaction=False) as pipe:
            for pool in self._pools:
                pipe.exists(*queue_keys(pool))
            return {pool for pool, count in zip(self._pools, pipe.execute(), strict=True) if count}


def find_state(worker: FarmWorker, *, is_waited_for: bool) -> str:
    """What a worker does now beside a request, as LETTERS names it."""
    runner = worker.runner
    if worker.is_stopping or worker.has_ended:
        return "draining"
    if worker.services.suspension.holds(worker.lease.pool):
        return "suspended"
    if runner.health.seconds_to_rest():
        return "resting"
    if not runner.health.can_work():
        return "upstream_down"
    if not runner.token.is_usable():
        return "refreshing"
    return "idle_waiting" if is_waited_for else "idle"
