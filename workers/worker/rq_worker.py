"""The RQ worker: a greenlet bound by a lease to one slot of a credential, waiting for jobs; job_runner.py runs them.

It keeps RQ's names, registries and commands, and replaces its loop: no signals, no thread or subscription of its own.
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
from rq import SimpleWorker, worker_registration
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from shared import keys, names
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.worker.blocking_pop import BlockingPop
from workers.worker.job_runner import JobRunner
from workers.worker.leased_credential import LeasedCredential

log = logging.getLogger("farm.worker")
#: Seconds that an idle worker waits before it asks Redis again; long, because nothing is lost by waiting.
POP_TIMEOUT_SECONDS = 60.0
#: Seconds that RQ shows a worker which no longer gives a sign of life, less the 60 that RQ adds.
WORKER_TTL_SECONDS = 60
#: Longest pause before a lost Redis is tried again, in seconds.
MAX_RECONNECT_SECONDS = 1.0
#: Longest time in seconds until a worker that rests looks whether it may work again.
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
        self.lease = lease
        self.services = services
        waits_at = queues["interactive"]
        self.blocking_pop = BlockingPop(services.connections, waits_at.key, waits_at.intermediate_queue_key)
        self.runner = JobRunner(self, credential, bookkeeping, self._can_continue)
        self._stopping = credential.stop_signal.events[slot - 1]
        #: What operators ask of it, done between two requests.
        self._operations: list[Callable[[], None]] = []
        #: Whether it is over, and does nothing more.
        self.has_ended = False
        #: Whether RQ was told of it, and when it last was, by the monotonic clock.
        self.is_registered = False
        self.heartbeat_at = 0.0

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ would set its own timeout on the connections that all workers of the process share."""
        return connection

    # Life

    def run(self) -> None:
        """Until asked to stop: 1. do errands, 2. wait until it may work, 3. wait for a job, 4. run it."""
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
        """A refresh on its way ends first; a name that belongs to another's worker by now is left alone."""
        self.has_ended = True
        self.blocking_pop.close()
        self.runner.close()
        if not self.lease.lost:
            self.connection.zrem(keys.idle_workers(self.lease.pool), self.name)
            self.register_death()  # type: ignore[no-untyped-call]

    def register_birth(self) -> None:
        """As RQ's, in one round trip; no other worker can have the name, because the lease is ours."""
        self.birth_date = self.last_heartbeat = now()
        with self.connection.pipeline() as pipe:
            pipe.delete(self.key)
            pipe.hset(self.key, mapping={**self.serialize(), "state": WorkerStatus.IDLE.value})
            worker_registration.register(self, pipe)
            pipe.expire(self.key, self.worker_ttl + 60)
            pipe.execute()
        self.is_registered = True
        self.heartbeat_at = time.monotonic()

    def heartbeat_into(self, pipe: Any) -> None:
        """A sign of life into a pipeline; registers again, should Redis have lost its data."""
        self.last_heartbeat, self.heartbeat_at = now(), time.monotonic()
        pipe.hset(self.key, mapping={**self.serialize(), "last_heartbeat": utcformat(self.last_heartbeat)})
        pipe.hdel(self.key, "death")
        worker_registration.register(self, pipe)
        pipe.expire(self.key, self.worker_ttl + 60)
        pipe.expire(self.executions_key, self.worker_ttl + 60)

    def stop(self) -> None:
        """Asks the worker to end after the job it runs."""
        self._stopping.set()

    def run_between_jobs(self, errand: Callable[[], None]) -> None:
        """Has something done between two requests, even by a worker that is about to end."""
        self._operations.append(errand)

    @property
    def should_wake(self) -> bool:
        """Whether it should come back from waiting for a job."""
        return bool(self._operations) or self.is_stopping or not self.can_work()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return bool(self._stopping.is_set())

    def kill_horse(self, sig: Any = None) -> None:
        """RQ's stop command: ends the attempt that runs, because nobody waits for it."""
        self.runner.cancel("client_gone")

    # Waiting

    def can_work(self) -> bool:
        """Whether it may take a job now."""
        return self.lease.is_held() and not self.services.is_suspended() and self.runner.health.can_work()

    def _can_continue(self) -> bool:
        """Whether it may take its next job at once."""
        return not self.should_wake

    def _pause(self) -> None:
        """Takes no job: suspended by a person, cooling, or without its lease."""
        self._show_state(WorkerStatus.SUSPENDED)
        self.runner.queue_was_empty = False
        while not self._operations and not self._stopping.is_set() and not self.can_work():
            self._stopping.wait(min(MAX_PAUSE_SECONDS, self.runner.health.cooldown.remaining() or MAX_PAUSE_SECONDS))
        if not self._stopping.is_set():
            self._show_state(WorkerStatus.IDLE)

    def _show_state(self, state: WorkerStatus) -> None:
        try:
            self.set_state(state.value)
        except RedisError as error:
            log.warning("state not shown: %s", error, extra=self._fields("redis_lost"))

    def _run_next(self) -> None:
        """Has a token ready and runs what waits, else waits for a job; a Redis that is gone is tried again soon."""
        try:
            if not self.runner.health.ensure_fresh_token():
                return
            if not self.runner.queue_was_empty:
                self.runner.run()
                return
            self.runner.queue_was_empty = False
            job_id = self.blocking_pop.pop(POP_TIMEOUT_SECONDS * random.uniform(0.75, 1.25))
            if job_id is not None:
                self.runner.run(job_id)
        except (RedisError, OSError) as error:
            log.warning("Redis is lost: %s", error, extra=self._fields("redis_lost"))
            self._stopping.wait(random.uniform(0.1, MAX_RECONNECT_SECONDS))

    def _fields(self, action: str) -> dict[str, Any]:
        """The fields of a log record."""
        return {"action": action, "worker": self.name, "credential_id": self.lease.credential_id}


def spawn_worker(worker: FarmWorker, ended: Callable[[FarmWorker], None]) -> gevent.Greenlet:
    """Runs the worker in a greenlet; calls `ended` when it is over, whatever ended it."""

    def live() -> None:
        try:
            worker.run()
        except (RedisError, OSError) as error:
            log.warning("worker ended: %s", error, extra={"action": "worker_ended", "worker": worker.name})
        except Exception:
            log.exception("worker ended", extra={"action": "worker_ended", "worker": worker.name})
        finally:
            ended(worker)

    return gevent.spawn(live)
