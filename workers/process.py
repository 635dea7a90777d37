"""One worker process: claims credentials by lease, hosts a worker for each, and gives them back in good time.

It knows what should run here; a worker knows how.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import cast

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared.counters import Counters
from shared.credentials import Credentials, State
from shared.opener import Opener
from shared.persistence import keep_running
from shared.redis_client import connect, lone_connections
from shared.settings import Settings
from workers.census import Census
from workers.control import Control
from workers.fronts import Fronts
from workers.interruption import Watch
from workers.leases import RENEW_EVERY, Lease, Leases
from workers.pool_queue import PoolQueue
from workers.publisher import Publisher
from workers.seat import Surroundings
from workers.tokens import TokenStore
from workers.worker import FarmWorker, spawn

log = logging.getLogger("farm.process")
#: Seconds between two looks at what should run here.
LOOK_EVERY = 1.0
#: Seconds between two signs of life of every worker towards RQ.
BEAT_EVERY = 20.0
#: Seconds between two looks at what died workers left in the intermediate queues.
RECOVER_EVERY = 2.0
#: Seconds between two looks for web processes that have died.
FRONTS_EVERY = 0.5
#: Seconds between two rounds of RQ's own cleaning.
CLEAN_EVERY = 60.0
#: Seconds that running requests get when the process stops.
DRAIN = 30.0
#: Seconds more for a token refresh that is on its way, whose answer must not be lost.
LAST_REFRESH = 35.0


class WorkerProcess:
    """Hosts the workers of one OS process."""

    def __init__(self, settings: Settings, opener: Opener, process_id: str, predecessor: str = "") -> None:
        self.id = process_id
        self._predecessor = predecessor
        self._settings = settings
        self._redis = connect(settings.redis_url)
        connections = lone_connections(settings.redis_url)
        counters = Counters()
        self._credentials = Credentials(self._redis)
        self._leases = Leases(connect(settings.redis_url, size=2, timeout=3.0), self.id)
        self._census = Census(self._redis, self.id, [pool.name for pool in settings.pools], settings.max_workers)
        self._workers: dict[str, FarmWorker] = {}
        self._greenlets: dict[str, gevent.Greenlet] = {}
        self._stopping = Event()
        self._around = Surroundings(
            settings=settings,
            redis=self._redis,
            connections=connections,
            publisher=Publisher(connections, counters),
            watch=Watch(),
            counters=counters,
            tokens=TokenStore(self._redis, opener),
            move=self._move,
            suspended=lambda: self._census.suspended,
        )
        self._control = Control(connect(settings.redis_url, size=2), self._around.publisher.hear)
        self._queues = {pool.name: PoolQueue(self._redis, pool.name, settings.max_attempts) for pool in settings.pools}
        queues = [one.queue for one in self._queues.values()]
        self._fronts = Fronts(self._redis, queues, counters, self._front_gone)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then lets running requests end and gives the credentials back."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(signum, self._stopping.set)
        endless = (self._around.publisher.run, self._around.watch.run, self._control.run)
        background = [gevent.spawn(keep_running, work) for work in endless]
        for seconds, work in self._chores():
            background.append(gevent.spawn(self._every, seconds, work))
        self._guarded(lambda: self._for_each_queue(PoolQueue.show))
        log.info("worker process is up", extra={"action": "process_started", "worker_process": self.id})
        parent = os.getppid()
        if self._predecessor:
            self._guarded(self._bury)
        while not self._stopping.is_set() and os.getppid() == parent:
            self._guarded(self._look)
            self._stopping.wait(LOOK_EVERY)
        self._drain()
        gevent.killall(background)
        log.info("worker process is down", extra={"action": "process_stopped", "worker_process": self.id})

    def _chores(self) -> list[tuple[float, Callable[[], None]]]:
        return [
            (RENEW_EVERY, self._renew),
            (BEAT_EVERY, self._beat),
            (RECOVER_EVERY, lambda: self._for_each_queue(PoolQueue.recover)),
            (CLEAN_EVERY, lambda: self._for_each_queue(PoolQueue.clean)),
            (FRONTS_EVERY, self._fronts.look),
            (1.0, lambda: self._around.counters.hand_over(self._redis)),
            (5.0, self._around.publisher.expire),
        ]

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        while True:
            gevent.sleep(seconds)
            self._guarded(work)

    def _guarded(self, work: Callable[[], None]) -> None:
        """A chore that fails is tried again at its next turn; the process lives on."""
        try:
            work()
        except (RedisError, OSError) as error:
            log.warning(
                "%s failed: %s", work.__name__, error, extra={"action": "redis_lost", "worker_process": self.id}
            )
        except Exception:
            log.exception("%s failed", work.__name__, extra={"action": "chore_failed", "worker_process": self.id})

    def _bury(self) -> None:
        """The process in whose place this one is has died: what it held is free."""
        ids = [one for pool in self._settings.pools for one in self._credentials.states(pool.name)]
        freed = self._leases.bury(self._predecessor, ids)
        self._census.bury(self._predecessor)
        fields = {"action": "process_buried", "worker_process": self._predecessor}
        log.warning("a worker process died and left %d leases, free now", freed, extra=fields)

    # What should run here

    def _look(self) -> None:
        """1. Report and count. 2. Stop workers that should not run here. 3. Claim what is missing to our share."""
        self._census.take(self._workers.values())
        self._stop_surplus()
        for pool in self._settings.pools:
            missing = self._census.share(pool.name) - self._running(pool.name)
            for lease in self._leases.claim(pool.name, self._candidates(pool.name), missing):
                self._start(lease)
        self._unblock(self._idle_that_must_not())

    def _candidates(self, pool: str) -> list[str]:
        return [one for one in self._census.usable(pool) if one not in self._workers]

    def _running(self, pool: str) -> int:
        return sum(1 for worker in self._workers.values() if worker.lease.pool == pool)

    def _stop_surplus(self) -> None:
        """Workers whose credential is not usable, whose lease is lost, or who are above our share; idle ones first."""
        for pool in self._settings.pools:
            usable = set(self._census.usable(pool.name))
            here = [w for w in self._workers.values() if w.lease.pool == pool.name]
            keep = [w for w in here if w.lease.credential_id in usable and not w.lease.lost and not w.stopping]
            surplus = sorted(keep, key=lambda w: bool(w.serving.busy_since))[
                : max(0, len(keep) - self._census.share(pool.name))
            ]
            for worker in [w for w in here if w not in keep] + surplus:
                worker.stop()

    def _idle_that_must_not(self) -> list[FarmWorker]:
        waiting = [w for w in self._workers.values() if w.line.client_id and not w.serving.busy_since]
        return [w for w in waiting if w.stopping or self._census.suspended]

    def _unblock(self, workers: list[FarmWorker]) -> None:
        """Ends the wait of idle workers; Redis hands a job either to them or not, so none is lost."""
        if not workers:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            for worker in workers:
                pipe.client_unblock(worker.line.client_id)
            pipe.execute(raise_on_error=False)

    def _start(self, lease: Lease) -> None:
        found = self._queues[lease.pool]
        pool = self._settings.pool(lease.pool)
        worker = FarmWorker(lease, pool, found.queue, found.bookkeeping, self._around)
        try:
            found.orphans.of(worker)
        except (RedisError, OSError):
            self._leases.release(lease)
            raise
        if (left := self._census.cooling_left(lease.credential_id)) is not None:
            worker.serving.pauses.resume(left)
        self._workers[lease.credential_id] = worker
        self._control.add(worker)
        self._greenlets[lease.credential_id] = spawn(worker, self._ended)

    def _ended(self, worker: FarmWorker) -> None:
        """A worker's greenlet is over: its credential is free for another."""
        self._workers.pop(worker.lease.credential_id, None)
        self._greenlets.pop(worker.lease.credential_id, None)
        self._census.ended(worker)
        self._control.remove(worker)
        self._guarded(lambda: self._leases.release(worker.lease))

    def _move(self, pool: str, credential_id: str, state: str, reason: str, until: float) -> None:
        moved = self._credentials.move(pool, credential_id, cast("State", state), reason, until)
        fields = {"action": f"credential_{state}", "credential_id": credential_id, "pool": pool, "reason": reason}
        log.log(logging.WARNING if state == "dead" else logging.INFO, "credential is %s", state, extra=fields)
        if not moved:
            log.info("a person's word stands", extra={**fields, "action": "state_kept"})

    # Chores

    def _renew(self) -> None:
        for lease in self._leases.renew([w.lease for w in self._workers.values()]):
            worker = self._workers.get(lease.credential_id)
            log.warning("lease lost", extra={"action": "lease_lost", "credential_id": lease.credential_id})
            if worker is not None:
                worker.stop()
                worker.serving.interrupt("lease_lost")

    def _front_gone(self, front: str) -> None:
        """Nobody waits for what runs for that web process."""
        for worker in self._workers.values():
            if worker.serving.front == front:
                worker.serving.interrupt("client_gone")
        self._around.publisher.forget_front(front)

    def _beat(self) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for worker in self._workers.values():
                worker.beat(pipe)
            pipe.execute()

    def _for_each_queue(self, work: Callable[[PoolQueue], None]) -> None:
        for queue in self._queues.values():
            work(queue)

    # The end

    def _drain(self) -> None:
        """1. Say goodbye, so that others take over. 2. Stop idle workers now, busy ones after their request."""
        self._guarded(self._census.leave)
        for worker in self._workers.values():
            worker.stop()
        until = time.monotonic() + DRAIN
        while self._workers and time.monotonic() < until:
            self._guarded(lambda: self._unblock(self._idle_that_must_not()))
            gevent.joinall(list(self._greenlets.values()), timeout=0.2)
        for worker in list(self._workers.values()):
            worker.serving.interrupt("worker_stopped")
        gevent.joinall(list(self._greenlets.values()), timeout=LAST_REFRESH)
        self._around.publisher.drain(2.0)
        self._guarded(lambda: self._around.counters.hand_over(self._redis))
