"""The RQ worker: a greenlet bound by a lease to one slot of a credential, which waits for jobs.

It keeps RQ's names, registries and commands, and replaces RQ's loop: no signals, thread or subscription per worker.
"""

import logging
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from shared import keys, names
from workers.credentials.account_limits.verdict import TRY
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.worker.blocking_pop import BlockingPop
from workers.worker.job_runner import JobRunner
from workers.worker.leased_credential import LeasedCredential
from workers.worker.log_fields import build_log_fields
from workers.worker.registration import register

log = logging.getLogger("farm.worker")
#: Seconds that an idle worker waits for a job before it asks again; long, because `wake_idle` can end the wait.
POP_TIMEOUT_SECONDS = 60.0
#: Shortest one: 0 means forever to Redis.
MIN_POP_TIMEOUT_SECONDS = 0.01
#: Pauses in seconds between attempts to unblock a worker that may be about to block.
UNBLOCK_PAUSES = tuple(0.002 * 2**i for i in range(10))
#: Seconds without a heartbeat until RQ forgets a worker, less the 60 that RQ adds.
WORKER_TTL_SECONDS = 60
#: Longest pause in seconds before a lost Redis is retried.
MAX_RECONNECT_SECONDS = 1.0
#: Longest time in seconds until a suspended worker checks again whether it can work.
MAX_PAUSE_SECONDS = 0.5


class FarmWorker(SimpleWorker):
    """One RQ worker with its credential."""

    def __init__(self, credential: LeasedCredential, bookkeeping: Bookkeeping, slot: int = 1) -> None:
        lease, services = credential.lease, credential.services
        queues = bookkeeping.queues
        super().__init__(
            list(queues.values()),
            name=names.worker_name(lease.pool, lease.credential_id, slot),
            connection=services.redis,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
            prepare_for_work=False,
            log_job_description=False,
        )
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.ip_address = "unknown"
        self.credential = credential
        self.lease = lease
        self.services = services
        queue = queues["interactive"]
        self.blocking_pop = BlockingPop(services.connections, queue.key, queue.intermediate_queue_key)
        self.runner = JobRunner(self, credential, bookkeeping, self._can_continue)
        self._stopping = credential.stop_signal.events[slot - 1]
        #: Operators' operations, run between two jobs.
        self._operations: list[Callable[[], None]] = []
        #: Whether it has ended, so that it runs no more operations.
        self.has_ended = False
        self.is_registered = False
        #: By the monotonic clock.
        self.heartbeat_at = 0.0

    def _set_connection(self, connection: Redis) -> Redis:
        """Overrides RQ, which would set its timeout on the connections that all workers of the process share."""
        return connection

    def run(self) -> None:
        """Until stopped: 1. run operations, 2. wait until it can work, 3. wait for a job, 4. run it."""
        try:
            self.register_birth()
            while self._operations or not self._stopping.is_set():
                if self._operations:
                    self._operations.pop(0)()
                elif not self.can_work():
                    self._pause()
                else:
                    self._run_next()
            if self.runner.health.is_token_refused and names.is_private(self.lease.pool):
                self.runner.reject_waiting_jobs()
        finally:
            self._shut_down()

    def _shut_down(self) -> None:
        """Unregisters the worker, unless the lease is lost: the name may be another process's worker by now."""
        self.has_ended = True
        self.blocking_pop.close()
        self.runner.close()
        if not self.lease.lost:
            self.connection.zrem(keys.idle_workers(self.lease.pool), self.name)
            self.register_death()  # type: ignore[no-untyped-call]

    def register_birth(self) -> None:
        """Stands for rq.worker.BaseWorker.register_birth (RQ 3.0), in one round trip.

        The lease guarantees that no other worker has the name.
        """
        self.birth_date = self.last_heartbeat = now()
        with self.connection.pipeline() as pipe:
            pipe.delete(self.key)
            pipe.hset(self.key, mapping={**self.serialize(), "state": WorkerStatus.IDLE.value})
            register(self, self.lease.pool, pipe)
            pipe.expire(self.key, self.worker_ttl + 60)
            pipe.execute()
        self.is_registered = True
        self.heartbeat_at = time.monotonic()

    def heartbeat_into(self, pipe: Any) -> None:
        """Adds RQ's heartbeat to a pipeline; also registers again, in case Redis has lost data."""
        self.last_heartbeat, self.heartbeat_at = now(), time.monotonic()
        pipe.hset(self.key, mapping={**self.serialize(), "last_heartbeat": utcformat(self.last_heartbeat)})
        pipe.hdel(self.key, "death")
        register(self, self.lease.pool, pipe)
        pipe.expire(self.key, self.worker_ttl + 60)
        pipe.expire(self.executions_key, self.worker_ttl + 60)

    def stop(self) -> None:
        """Makes the worker end after its current job."""
        self._stopping.set()

    def run_between_jobs(self, operation: Callable[[], None]) -> None:
        """Queues an operation, which even a stopping worker still runs."""
        self._operations.append(operation)

    @property
    def should_wake(self) -> bool:
        """Whether it should stop waiting for a job in BLMOVE."""
        return self.runner.should_look or not self._can_continue()

    @property
    def is_stopping(self) -> bool:
        return bool(self._stopping.is_set())

    def kill_horse(self, sig: Any = None) -> None:
        """RQ's stop command: cancels the running attempt, whose caller has gone."""
        self.runner.cancel("client_gone")

    def can_work(self) -> bool:
        """Whether it can take a job now."""
        is_suspended = self.services.suspension.holds(self.lease.pool)
        return self.lease.is_held() and not is_suspended and self.runner.health.can_work()

    def _can_continue(self) -> bool:
        """Whether it may start its next job right after the last."""
        return not self._operations and not self.is_stopping and self.can_work()

    def look_again(self) -> None:
        """Makes it look for a job now, because one waits for it that BLMOVE does not hand over."""
        self.runner.should_look = True
        gevent.spawn(self._unblock)

    def _unblock(self) -> None:
        for pause in UNBLOCK_PAUSES:
            if not self.runner.should_look or self.runner.busy_since or self.has_ended:
                return
            try:
                if self.blocking_pop.client_id:
                    self.connection.client_unblock(self.blocking_pop.client_id)
            except RedisError:
                # The process unblocks it within a second (WorkerSet.wake_idle).
                return
            gevent.sleep(pause)

    def _pause(self) -> None:
        """Waits while RQ is suspended, the pool paused, the credential cannot work, or the lease has run out.

        A short rest by the account's limits costs no round trip: turn.lua has taken the worker out of the idle ones.
        """
        is_shown = not self.runner.health.is_resting_briefly
        if is_shown:
            self._show_state(WorkerStatus.SUSPENDED)
            self._leave_idle()
        self.runner.queue_was_empty = False
        while not self._operations and not self._stopping.is_set() and not self.can_work():
            self.runner.health.changed.clear()
            seconds = min(MAX_PAUSE_SECONDS, self.runner.health.seconds_to_rest() or MAX_PAUSE_SECONDS)
            gevent.wait([self._stopping, self.runner.health.changed], timeout=seconds, count=1)
            self._try_another_model()
        if is_shown and not self._stopping.is_set():
            self._show_state(WorkerStatus.IDLE)

    def _try_another_model(self) -> None:
        """If the credential rests as a whole because of a model, it may be the one that tries another model."""
        if self.is_stopping or self.services.suspension.holds(self.lease.pool) or not self.lease.is_held():
            return
        if self.runner.health.decide_trial() == TRY:
            try:
                self.runner.run_trial()
            except RedisError as error:
                log.warning("Redis is lost: %s", error, extra=build_log_fields(self, self.lease, "redis_lost"))

    def _leave_idle(self) -> None:
        """Nobody need wake it while it can't work."""
        try:
            self.connection.zrem(keys.idle_workers(self.lease.pool), self.name)
        except RedisError as error:
            log.warning(
                "worker still listed as idle: %s", error, extra=build_log_fields(self, self.lease, "redis_lost")
            )

    def _show_state(self, state: WorkerStatus) -> None:
        try:
            self.set_state(state.value)
        except RedisError as error:
            log.warning("state not set in RQ: %s", error, extra=build_log_fields(self, self.lease, "redis_lost"))

    def _run_next(self) -> None:
        """Ensures a token; then runs waiting jobs, or waits for one if there was none at the last look."""
        try:
            if not self.runner.health.ensure_fresh_token():
                return
            timeout = min(POP_TIMEOUT_SECONDS * random.uniform(0.75, 1.25), self.runner.seconds_to_look)
            if not self.runner.queue_was_empty or not timeout:
                self.runner.run()
                return
            self.runner.queue_was_empty = False
            job_id = self.blocking_pop.pop(max(timeout, MIN_POP_TIMEOUT_SECONDS))
            if job_id is not None:
                self.runner.run(job_id)
        except RedisError as error:
            log.warning("Redis is lost: %s", error, extra=build_log_fields(self, self.lease, "redis_lost"))
            self._stopping.wait(random.uniform(0.1, MAX_RECONNECT_SECONDS))


def spawn_worker(worker: FarmWorker, on_end: Callable[[FarmWorker], None]) -> gevent.Greenlet:
    """Runs the worker in a greenlet; calls `on_end` in any case when it has ended."""

    def run() -> None:
        try:
            worker.run()
        except RedisError as error:
            log.warning("worker ended: %s", error, extra={"action": "worker_ended", "worker": worker.name})
        except Exception:
            log.exception("worker ended", extra={"action": "worker_ended", "worker": worker.name})
        finally:
            on_end(worker)

    return gevent.spawn(run)
