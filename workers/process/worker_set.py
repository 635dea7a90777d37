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
from workers.jobs.pool_queues import PoolQueues
from workers.per_pool import PerPool
from workers.process.command_listener import CommandListener
from workers.process.membership import Membership, pool_group
from workers.worker.leased_credential import LeasedCredential
from workers.worker.rq_worker import FarmWorker, spawn_worker
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.process")
#: Calls of `beat_oldest` within which every worker gives a sign of life.
HEARTBEAT_ROUNDS = 20


class WorkerSet:
    """All workers of a process."""

    def __init__(
        self,
        services: WorkerServices,
        leases: Leases,
        census: Membership,
        control: CommandListener,
        queues: PerPool[PoolQueues],
    ) -> None:
        self._services = services
        self._leases = leases
        self._membership = census
        self._commands = control
        self._queues = queues
        #: By their names.
        self._workers: dict[str, FarmWorker] = {}
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def workers_in_pool(self, pool: str) -> list[FarmWorker]:
        """The workers of a pool."""
        return [worker for worker in self._workers.values() if worker.lease.pool == pool]

    def reconcile(self) -> None:
        """1. Report and count. 2. Stop workers that should not run here. 3. Claim what is missing to our share."""
        self._membership.refresh(self._workers.values())
        self._leases.suspend_claims_after(self._membership.redis_replaced_at)
        self._forget_pools()
        for group in self._membership.groups:
            for pool in self._membership.pools_in_group(group):
                self._sync_breaker(pool)
            self._stop_surplus(group)
            self._claim_missing(group)
        for worker in self._workers.values():
            worker.runner.health.observe_state(
                self._membership.credential_state(worker.lease.pool, worker.lease.credential_id),
                self._membership.refreshed_at,
            )
        self.wake_idle()
        if self._membership.has_lost_workers:
            log.warning("RQ has lost workers: they register again", extra={"action": "registered_again"})
            self.heartbeat()

    def _forget_pools(self) -> None:
        """Drops what was kept for the pools of private credentials that are no more."""
        wanted = {pool for group in self._membership.groups for pool in self._membership.pools_in_group(group)}
        wanted |= {worker.lease.pool for worker in self._workers.values()}
        self._queues.keep(wanted)
        self._services.breakers.keep(wanted)

    def _claim_missing(self, group: str) -> None:
        """Up to our share."""
        here = {worker.lease.credential_id for worker in self._workers_in_group(group)}
        missing = self._membership.fair_share(group) - len(here)
        for pool in self._membership.pools_in_group(group):
            candidates = [one for one in self._membership.usable_credentials(pool) if one not in here]
            leases = self._leases.claim(pool, candidates, missing)
            missing -= len(leases)
            for lease in leases:
                self._start(lease)

    def _workers_in_group(self, group: str) -> list[FarmWorker]:
        """The workers of a group of pools."""
        return [worker for worker in self._workers.values() if pool_group(worker.lease.pool) == group]

    def _stop_surplus(self, group: str) -> None:
        """Workers whose credential is not usable, whose lease is lost, or who are above our share; idle ones first."""
        usable = set(self._membership.usable_credentials_in_group(group))
        keep: defaultdict[str, list[FarmWorker]] = defaultdict(list)
        for worker in self._workers_in_group(group):
            if worker.lease.credential_id in usable and not worker.lease.lost and not worker.is_stopping:
                keep[worker.lease.credential_id].append(worker)
            else:
                worker.stop()
        above = len(keep) - self._membership.fair_share(group)
        if above > 0:
            for surplus in sorted(keep, key=lambda one: any(w.runner.busy_since for w in keep[one]))[:above]:
                for worker in keep[surplus]:
                    worker.stop()

    def _sync_breaker(self, pool: str) -> None:
        """While the upstream is down, one worker of all processes tries it now and then."""
        breaker = self._services.breakers[pool]
        breaker.sync(self._membership.breakers.get(pool, {}), self._membership.refreshed_at)
        if breaker.is_open:
            able = [w for w in self.workers_in_pool(pool) if not w.is_stopping and w.lease.is_held()]
            idle = [w for w in able if not w.runner.busy_since and not w.runner.health.cooldown.remaining()]
            breaker.assign_probe({w.lease.credential_id for w in able}, [w.lease.credential_id for w in idle])

    def _start(self, lease: Lease) -> None:
        """A worker for each slot of the credential."""
        queues = self._queues[lease.pool]
        credential = LeasedCredential(lease, self._services.settings.pool(lease.pool), self._services)
        workers = [FarmWorker(credential, queues.bookkeeping, slot + 1) for slot in range(credential.pool.slots)]
        try:
            for worker in workers:
                queues.recover_from_predecessor(worker)
        except (RedisError, OSError):
            self._leases.release(lease)
            raise
        for worker in workers:
            self._services.worker_counts[lease.pool] += 1
            self._workers[worker.name] = worker
            self._commands.add(worker)
            self._greenlets[worker.name] = spawn_worker(worker, self._on_worker_ended)

    def _on_worker_ended(self, worker: FarmWorker) -> None:
        """A worker's greenlet is over; after the last of its credential that is free for another process."""
        self._workers.pop(worker.name, None)
        self._greenlets.pop(worker.name, None)
        self._services.worker_counts[worker.lease.pool] -= 1
        self._membership.utilisation.record_ended(worker)
        self._commands.remove(worker)
        if any(other.lease is worker.lease for other in self._workers.values()):
            return
        try:
            self._leases.release(worker.lease)
        except (RedisError, OSError) as error:
            extra = {"action": "redis_lost", "credential_id": worker.lease.credential_id}
            log.warning("lease not given back, it runs out: %s", error, extra=extra)

    # What is done to all of them

    def wake_idle(self) -> None:
        """Ends the wait of idle workers that may take no job; Redis hands a job to them or not, so none is lost."""
        waiting = [w for w in self._workers.values() if w.blocking_pop.client_id and not w.runner.busy_since]
        ending = [w for w in waiting if w.should_wake]
        if not ending:
            return
        with self._services.redis.pipeline(transaction=False) as pipe:
            for worker in ending:
                pipe.client_unblock(worker.blocking_pop.client_id)
            pipe.execute(raise_on_error=False)

    def refresh_idle_tokens(self) -> None:
        """Renews the access tokens of workers that wait, apart from any request."""
        now = time.time()
        for worker in [w for w in self._workers.values() if w.runner.token.renew_at <= now]:
            if worker.blocking_pop.client_id and not worker.runner.busy_since and worker.runner.health.needs_refresh():
                gevent.spawn(worker.runner.health.ensure_fresh_token)

    def renew_leases(self) -> None:
        """Renews the leases; the workers of one that was lost end."""
        leases = {worker.lease.credential_id: worker.lease for worker in self._workers.values()}
        for lease in self._leases.renew(list(leases.values())):
            self._services.counters.increment("leases_lost")
            log.warning("lease lost", extra={"action": "lease_lost", "credential_id": lease.credential_id})
            for worker in [one for one in self._workers.values() if one.lease is lease]:
                worker.stop()
                worker.runner.cancel("lease_lost")

    def heartbeat(self) -> None:
        """A sign of life of every worker towards RQ."""
        self._send_heartbeats(self._workers.values())

    def heartbeat_oldest(self) -> None:
        """A sign of life of those whose last is the oldest: all at once would hold up the requests of a thousand."""
        by_age = sorted(self._workers.values(), key=lambda w: w.heartbeat_at)
        self._send_heartbeats(by_age[: math.ceil(len(by_age) / HEARTBEAT_ROUNDS)])

    def _send_heartbeats(self, workers: Iterable[FarmWorker]) -> None:
        with self._services.redis.pipeline(transaction=False) as pipe:
            for worker in workers:
                worker.heartbeat_into(pipe)
            pipe.execute()

    def find_or_start_worker(self, pool: str, credential_id: str) -> FarmWorker | None:
        """A worker of the credential, made for an errand if there is none; None when another process has it."""
        known = self._services.settings.has_pool(pool)
        if known and not any(w.lease.credential_id == credential_id for w in self.workers_in_pool(pool)):
            for lease in self._leases.claim(pool, [credential_id], 1, STATES):
                self._start(lease)
        return next((w for w in self.workers_in_pool(pool) if w.lease.credential_id == credential_id), None)

    def cancel_front_requests(self, front: str) -> None:
        """Nobody waits for what runs for that web process."""
        for worker in self._workers.values():
            if worker.runner.front == front:
                worker.runner.cancel("client_gone")
        self._services.streams.forget_front(front)

    # The end

    def stop(self) -> None:
        """Asks all to end: idle ones now, busy ones after their request."""
        for worker in self._workers.values():
            worker.stop()

    def cancel_running(self) -> None:
        """Ends the requests that run."""
        for worker in list(self._workers.values()):
            worker.runner.cancel("worker_stopped")

    def join(self, timeout: float) -> None:
        """Waits until all have ended."""
        gevent.joinall(list(self._greenlets.values()), timeout=timeout)
