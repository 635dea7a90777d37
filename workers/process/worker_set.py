"""Reconciles the workers of this process with the usable credentials and its fair share of them.

Claims, renews and releases the leases. Runs no background task of its own.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import gevent
from redis.exceptions import RedisError
from rq import worker_registration

from shared import clock, names
from shared.credentials.records import STATES
from shared.credentials.token_origin import compute_token_origin
from workers.credentials.access_token import TOKEN_FAILURES
from workers.credentials.leases import Candidate, Leases
from workers.credentials.token_breaker import TokenBreaker
from workers.jobs.pool_queues import PoolQueues
from workers.per_pool import PerPool
from workers.process.command_listener import CommandListener
from workers.process.membership import Membership, pool_group
from workers.process.worker_starter import WorkerStarter
from workers.worker.rq_worker import FarmWorker, spawn_worker
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.process")
#: Calls of `heartbeat_oldest` within which every worker sends a heartbeat.
HEARTBEAT_ROUNDS = 20


class WorkerSet:
    """All workers of a process."""

    def __init__(
        self,
        services: WorkerServices,
        leases: Leases,
        membership: Membership,
        commands: CommandListener,
        queues: PerPool[PoolQueues],
    ) -> None:
        self._services = services
        self._leases = leases
        self._membership = membership
        self._commands = commands
        self._queues = queues
        self._starter = WorkerStarter(services, leases, queues, self._find_own_limits, self._run)
        #: RQ worker name -> worker, and its greenlet.
        self._workers: dict[str, FarmWorker] = {}
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[FarmWorker]:
        return iter(list(self._workers.values()))

    def workers_in_pool(self, pool: str) -> list[FarmWorker]:
        return [worker for worker in self._workers.values() if worker.lease.pool == pool]

    def reconcile(self) -> None:
        """1. Refresh the membership. 2. Stop surplus workers. 3. Claim credentials up to this process's fair share."""
        self._membership.refresh(self._workers.values())
        self._services.refreshes.store.use_header(is_readable=not self._membership.has_older_process)
        self._leases.suspend_claims_after(self._membership.redis_replaced_at, self._membership.failed_over_at)
        self._forget_pools()
        for group in self._membership.groups:
            for pool in self._membership.pools_in_group(group):
                self._sync_breaker(pool)
            self._sync_token_breaker(group)
            self._stop_surplus(group)
            self._claim_missing(group)
        for worker in self._workers.values():
            worker.credential.apply_own_limits(self._find_own_limits(worker.lease.credential_id))
            worker.runner.health.observe_state(
                self._membership.credential_state(worker.lease.pool, worker.lease.credential_id),
                self._membership.refreshed_at,
            )
        self._look_for_retries()
        self.wake_idle()
        if self._membership.has_lost_workers:
            log.warning("Redis has lost workers: registering them again", extra={"action": "registered_again"})
            self.heartbeat()

    def _find_own_limits(self, credential_id: str) -> str:
        """Limits of the credential's own, encoded, as the last refresh has read them."""
        return self._membership.own_limits.get(credential_id, "")

    def _look_for_retries(self) -> None:
        """Makes idle workers look at the waiting retries: those who could not run one may be its only hope by now."""
        for pool in self._membership.pools_with_retries:
            for worker in self.workers_in_pool(pool):
                worker.runner.should_look = worker.runner.should_look or not worker.runner.busy_since

    def _forget_pools(self) -> None:
        """Drops the queues and breakers of pools whose private credential is gone."""
        wanted = {pool for group in self._membership.groups for pool in self._membership.pools_in_group(group)}
        wanted |= {worker.lease.pool for worker in self._workers.values()}
        self._queues.keep(wanted)
        self._services.breakers.keep(wanted)
        self._services.limit_verdicts.keep(wanted)

    def _claim_missing(self, group: str) -> None:
        running = {worker.lease.credential_id for worker in self._workers_in_group(group)}
        missing = self._membership.fair_share(group) - len(running)
        if missing < 1:
            return
        candidates: list[Candidate] = []
        for pool in self._membership.pools_in_group(group):
            origin, usable = self._token_origin(pool), self._membership.usable_credentials(pool)
            candidates += [Candidate(pool, id_, origin) for id_ in usable if id_ not in running]
        self._starter.start(self._leases.claim_any(candidates, missing))

    def _token_origin(self, pool: str) -> str:
        return compute_token_origin(self._services.settings.pool(pool))

    def _workers_in_group(self, group: str) -> list[FarmWorker]:
        return [worker for worker in self._workers.values() if pool_group(worker.lease.pool) == group]

    def _stop_surplus(self, group: str) -> None:
        """Stops workers with an unusable credential or lost lease, then those above the fair share, idle ones first."""
        usable = set(self._membership.usable_credentials_in_group(group))
        keep: defaultdict[str, list[FarmWorker]] = defaultdict(list)
        for worker in self._workers_in_group(group):
            if worker.lease.credential_id in usable and not worker.lease.lost and not worker.is_stopping:
                keep[worker.lease.credential_id].append(worker)
            else:
                worker.stop()
        surplus = len(keep) - self._membership.fair_share(group)
        if surplus > 0:
            idle_first = sorted(keep, key=lambda credential: any(w.runner.busy_since for w in keep[credential]))
            for credential in idle_first[:surplus]:
                for worker in keep[credential]:
                    worker.stop()

    def _sync_breaker(self, pool: str) -> None:
        """While the breaker is open, assigns the probe to one worker of all processes."""
        breaker = self._services.breakers[pool]
        breaker.sync(self._membership.breakers.get(pool, {}), self._membership.refreshed_at)
        if breaker.is_open:
            held = [w for w in self.workers_in_pool(pool) if not w.is_stopping and w.lease.is_held()]
            able = [w for w in held if w.runner.busy_since or not w.runner.health.seconds_to_rest()]
            idle = [w for w in able if not w.runner.busy_since]
            breaker.assign_probe({w.lease.credential_id for w in able}, [w.lease.credential_id for w in idle])

    def _sync_token_breaker(self, pool: str) -> None:
        """While the breaker of a configured pool's token endpoint is open, makes one credential of all the probe."""
        if pool not in self._membership.token_breakers:
            return
        breaker = self._services.token_breakers[pool]
        breaker.sync(self._membership.token_breakers[pool], self._membership.refreshed_at)
        if breaker.is_open:
            able = {
                worker.lease.credential_id: worker
                for worker in self._workers.values()
                if names.configured_pool(worker.lease.pool) == pool
                and not worker.is_stopping
                and worker.lease.is_held()
            }
            if chosen := breaker.take_probe(able):
                gevent.spawn(self._probe_token_endpoint, breaker, able[chosen])

    def _probe_token_endpoint(self, breaker: TokenBreaker, worker: FarmWorker) -> None:
        try:
            worker.runner.token.force_refresh()
        except (*TOKEN_FAILURES, RedisError) as error:
            extra = {"action": "token_probe_failed", "credential_id": worker.lease.credential_id}
            log.info("the token endpoint was probed: %s", error, extra=extra)
        finally:
            breaker.end_probe()

    def _run(self, worker: FarmWorker) -> None:
        self._services.worker_counts[worker.lease.pool] += 1
        self._workers[worker.name] = worker
        self._commands.add(worker)
        self._greenlets[worker.name] = spawn_worker(worker, self._on_worker_ended)

    def _on_worker_ended(self, worker: FarmWorker) -> None:
        """Cleans up after a worker's greenlet; releases the lease after the credential's last worker."""
        self._workers.pop(worker.name, None)
        self._greenlets.pop(worker.name, None)
        self._services.worker_counts[worker.lease.pool] -= 1
        self._membership.utilisation.record_ended(worker)
        self._commands.remove(worker)
        if any(other.lease is worker.lease for other in self._workers.values()):
            return
        try:
            self._leases.release(worker.lease)
        except RedisError as error:
            extra = {"action": "redis_lost", "credential_id": worker.lease.credential_id}
            log.warning("lease not released, it will expire: %s", error, extra=extra)

    def wake_idle(self) -> None:
        """Unblocks idle workers that must stop waiting for a job.

        No job is lost: Redis ends the BLMOVE either with a job or without one.
        """
        waiting = [w for w in self._workers.values() if w.blocking_pop.client_id and not w.runner.busy_since]
        to_wake = [w for w in waiting if w.should_wake]
        if not to_wake:
            return
        with self._services.redis.pipeline(transaction=False) as pipe:
            for worker in to_wake:
                pipe.client_unblock(worker.blocking_pop.client_id)
            pipe.execute(raise_on_error=False)

    def refresh_due_tokens(self) -> None:
        """Refreshes access tokens in the background, also during a request, so that no request waits for it."""
        now = clock.now()
        for worker in [w for w in self._workers.values() if w.runner.token.renew_at <= now]:
            is_waiting = bool(worker.blocking_pop.client_id)
            if (is_waiting or worker.runner.busy_since) and worker.runner.health.needs_refresh():
                gevent.spawn(self._refresh_token, worker)

    def _refresh_token(self, worker: FarmWorker) -> None:
        try:
            worker.runner.health.ensure_fresh_token()
        except RedisError as error:
            extra = {"action": "redis_lost", "credential_id": worker.lease.credential_id}
            log.warning("no access token: %s", error, extra=extra)

    def renew_leases(self) -> None:
        """Renews the leases; stops the workers of a lost lease and cancels their attempts."""
        leases = {worker.lease.credential_id: worker.lease for worker in self._workers.values()}
        for lease in self._leases.renew(list(leases.values())):
            self._services.counters.increment("leases_lost")
            log.warning("lease lost", extra={"action": "lease_lost", "credential_id": lease.credential_id})
            for worker in [w for w in self._workers.values() if w.lease is lease]:
                worker.stop()
                worker.runner.cancel("lease_lost")

    def heartbeat(self) -> None:
        """Sends RQ's heartbeat for all workers."""
        self._send_heartbeats(self._list_registered())

    def heartbeat_oldest(self) -> None:
        """Sends RQ's heartbeat for the workers with the oldest one: a thousand at once would delay requests."""
        by_age = sorted(self._list_registered(), key=lambda w: w.heartbeat_at)
        self._send_heartbeats(by_age[: math.ceil(len(by_age) / HEARTBEAT_ROUNDS)])

    def _list_registered(self) -> list[FarmWorker]:
        """The workers that RQ knows. Of many that start together, gevent runs timers before the last has registered."""
        return [worker for worker in self._workers.values() if worker.is_registered and not worker.has_ended]

    def _send_heartbeats(self, running: Sequence[FarmWorker]) -> None:
        with self._services.redis.pipeline(transaction=False) as pipe:
            for worker in running:
                worker.heartbeat_into(pipe)
            pipe.execute()
            # A heartbeat registers its worker, and may reach Redis after the worker has ended and deregistered.
            ended = [worker for worker in running if worker.has_ended]
            for worker in ended:
                worker_registration.unregister(worker, pipe)
            if ended:
                pipe.execute()

    def find_or_start_worker(self, pool: str, credential_id: str) -> FarmWorker | None:
        """A worker of the credential, started in any credential state if need be; None when another process has it."""
        worker = self._find_worker(pool, credential_id)
        if worker is None and self._services.settings.has_pool(pool):
            self._starter.start(self._leases.claim(pool, [credential_id], 1, STATES, self._token_origin(pool)))
            worker = self._find_worker(pool, credential_id)
        return worker

    def _find_worker(self, pool: str, credential_id: str) -> FarmWorker | None:
        return next((w for w in self.workers_in_pool(pool) if w.lease.credential_id == credential_id), None)

    def cancel_front_requests(self, front: str) -> None:
        """Cancels the attempts that run for a dead front and drops its streams."""
        for worker in self._workers.values():
            if worker.runner.front == front:
                worker.runner.cancel("client_gone")
        self._services.streams.forget_front(front)

    def stop(self) -> None:
        """Stops all workers: idle ones now, busy ones after their job."""
        for worker in self._workers.values():
            worker.stop()

    def cancel_running(self) -> None:
        for worker in list(self._workers.values()):
            worker.runner.cancel("worker_stopped")

    def join(self, timeout: float) -> None:
        """Waits until all workers have ended, for at most `timeout` seconds."""
        gevent.joinall(list(self._greenlets.values()), timeout=timeout)
