"""The workers of one process: which should run here, started and stopped by what the census says.

It holds the leases, renews them and gives them back; it starts nothing in the background by itself.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable

import gevent
from redis.exceptions import RedisError

from shared.credentials.records import STATES
from workers.credentials.leases import Lease, Leases
from workers.jobs.pool_queues import PoolQueue
from workers.per_pool import Made
from workers.process.command_listener import Control
from workers.process.membership import Census, group_of
from workers.worker.leased_credential import Account
from workers.worker.rq_worker import FarmWorker, spawn
from workers.worker.services import Surroundings

log = logging.getLogger("farm.process")
#: Calls of `beat_oldest` within which every worker gives a sign of life.
BEAT_ROUNDS = 20


class Crew:
    """All workers of a process."""

    def __init__(
        self, around: Surroundings, leases: Leases, census: Census, control: Control, queues: Made[PoolQueue]
    ) -> None:
        self._around = around
        self._leases = leases
        self._census = census
        self._control = control
        self._queues = queues
        #: By their names.
        self._workers: dict[str, FarmWorker] = {}
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def of(self, pool: str) -> list[FarmWorker]:
        """The workers of a pool."""
        return [worker for worker in self._workers.values() if worker.lease.pool == pool]

    def look(self) -> None:
        """1. Report and count. 2. Stop workers that should not run here. 3. Claim what is missing to our share."""
        self._census.take(self._workers.values())
        self._leases.redis_was_replaced(self._census.replaced_at)
        self._forget_pools()
        for group in self._census.groups:
            for pool in self._census.pools_of(group):
                self._tend_breaker(pool)
            self._stop_surplus(group)
            self._claim_missing(group)
        for worker in self._workers.values():
            worker.serving.condition.heard(
                self._census.state(worker.lease.pool, worker.lease.credential_id), self._census.asked_at
            )
        self.send_home()
        if self._census.is_forgotten:
            log.warning("RQ has lost workers: they register again", extra={"action": "registered_again"})
            self.beat()

    def _forget_pools(self) -> None:
        """Drops what was kept for the pools of private credentials that are no more."""
        wanted = {pool for group in self._census.groups for pool in self._census.pools_of(group)}
        wanted |= {worker.lease.pool for worker in self._workers.values()}
        self._queues.keep(wanted)
        self._around.breakers.keep(wanted)

    def _claim_missing(self, group: str) -> None:
        """Up to our share."""
        here = {worker.lease.credential_id for worker in self._in(group)}
        missing = self._census.share(group) - len(here)
        for pool in self._census.pools_of(group):
            candidates = [one for one in self._census.usable(pool) if one not in here]
            leases = self._leases.claim(pool, candidates, missing)
            missing -= len(leases)
            for lease in leases:
                self._start(lease)

    def _in(self, group: str) -> list[FarmWorker]:
        """The workers of a group of pools."""
        return [worker for worker in self._workers.values() if group_of(worker.lease.pool) == group]

    def _stop_surplus(self, group: str) -> None:
        """Workers whose credential is not usable, whose lease is lost, or who are above our share; idle ones first."""
        usable = set(self._census.usable_in(group))
        keep: defaultdict[str, list[FarmWorker]] = defaultdict(list)
        for worker in self._in(group):
            if worker.lease.credential_id in usable and not worker.lease.lost and not worker.stopping:
                keep[worker.lease.credential_id].append(worker)
            else:
                worker.stop()
        above = len(keep) - self._census.share(group)
        if above > 0:
            for surplus in sorted(keep, key=lambda one: any(w.serving.busy_since for w in keep[one]))[:above]:
                for worker in keep[surplus]:
                    worker.stop()

    def _tend_breaker(self, pool: str) -> None:
        """While the upstream is down, one worker of all processes tries it now and then."""
        breaker = self._around.breakers[pool]
        breaker.learn(self._census.breakers.get(pool, {}), self._census.asked_at)
        if breaker.is_open:
            able = [w for w in self.of(pool) if not w.stopping and w.lease.holds()]
            idle = [w for w in able if not w.serving.busy_since and not w.serving.condition.pauses.left()]
            breaker.tend({w.lease.credential_id for w in able}, [w.lease.credential_id for w in idle])

    def _start(self, lease: Lease) -> None:
        """A worker for each slot of the credential."""
        found = self._queues[lease.pool]
        account = Account(lease, self._around.settings.pool(lease.pool), self._around)
        workers = [FarmWorker(account, found.bookkeeping, slot + 1) for slot in range(account.pool.slots)]
        try:
            for worker in workers:
                found.take_over(worker)
        except (RedisError, OSError):
            self._leases.release(lease)
            raise
        for worker in workers:
            self._workers[worker.name] = worker
            self._control.add(worker)
            self._greenlets[worker.name] = spawn(worker, self._ended)

    def _ended(self, worker: FarmWorker) -> None:
        """A worker's greenlet is over; after the last of its credential that is free for another process."""
        self._workers.pop(worker.name, None)
        self._greenlets.pop(worker.name, None)
        self._census.ended(worker)
        self._control.remove(worker)
        if any(other.lease is worker.lease for other in self._workers.values()):
            return
        try:
            self._leases.release(worker.lease)
        except (RedisError, OSError) as error:
            extra = {"action": "redis_lost", "credential_id": worker.lease.credential_id}
            log.warning("lease not given back, it runs out: %s", error, extra=extra)

    # What is done to all of them

    def send_home(self) -> None:
        """Ends the wait of idle workers that may take no job; Redis hands a job to them or not, so none is lost."""
        waiting = [w for w in self._workers.values() if w.line.client_id and not w.serving.busy_since]
        ending = [w for w in waiting if w.is_wanted]
        if not ending:
            return
        with self._around.redis.pipeline(transaction=False) as pipe:
            for worker in ending:
                pipe.client_unblock(worker.line.client_id)
            pipe.execute(raise_on_error=False)

    def refresh_idle(self) -> None:
        """Renews the access tokens of workers that wait, apart from any request."""
        now = time.time()
        for worker in [w for w in self._workers.values() if w.serving.token.renew_at <= now]:
            if worker.line.client_id and not worker.serving.busy_since and worker.serving.condition.is_due():
                gevent.spawn(worker.serving.condition.prepare)

    def renew(self) -> None:
        """Renews the leases; the workers of one that was lost end."""
        leases = {worker.lease.credential_id: worker.lease for worker in self._workers.values()}
        for lease in self._leases.renew(list(leases.values())):
            self._around.counters.add("leases_lost")
            log.warning("lease lost", extra={"action": "lease_lost", "credential_id": lease.credential_id})
            for worker in [one for one in self._workers.values() if one.lease is lease]:
                worker.stop()
                worker.serving.interrupt("lease_lost")

    def beat(self) -> None:
        """A sign of life of every worker towards RQ."""
        self._beat(self._workers.values())

    def beat_oldest(self) -> None:
        """A sign of life of those whose last is the oldest: all at once would hold up the requests of a thousand."""
        by_age = sorted(self._workers.values(), key=lambda w: w.beat_at)
        self._beat(by_age[: math.ceil(len(by_age) / BEAT_ROUNDS)])

    def _beat(self, workers: Iterable[FarmWorker]) -> None:
        with self._around.redis.pipeline(transaction=False) as pipe:
            for worker in workers:
                worker.beat(pipe)
            pipe.execute()

    def for_errand(self, pool: str, credential_id: str) -> FarmWorker | None:
        """A worker of the credential, made for an errand if there is none; None when another process has it."""
        known = self._around.settings.serves(pool)
        if known and not any(w.lease.credential_id == credential_id for w in self.of(pool)):
            for lease in self._leases.claim(pool, [credential_id], 1, STATES):
                self._start(lease)
        return next((w for w in self.of(pool) if w.lease.credential_id == credential_id), None)

    def front_gone(self, front: str) -> None:
        """Nobody waits for what runs for that web process."""
        for worker in self._workers.values():
            if worker.serving.front == front:
                worker.serving.interrupt("client_gone")
        self._around.publisher.forget_front(front)

    # The end

    def stop(self) -> None:
        """Asks all to end: idle ones now, busy ones after their request."""
        for worker in self._workers.values():
            worker.stop()

    def interrupt(self) -> None:
        """Ends the requests that run."""
        for worker in list(self._workers.values()):
            worker.serving.interrupt("worker_stopped")

    def join(self, timeout: float) -> None:
        """Waits until all have ended."""
        gevent.joinall(list(self._greenlets.values()), timeout=timeout)
