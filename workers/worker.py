"""The RQ worker: a greenlet, bound by a lease to one credential, with one request in flight.

It keeps RQ's names, registries and commands, and replaces its loop: no signals, no thread or subscription of its own.
"""

import logging
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import requests
from gevent.event import Event
from redis import Redis
from redis.connection import ConnectionPool
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker, worker_registration
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from shared import keys
from shared.counters import Counters
from shared.errors import LeaseLost
from shared.messages import Failure, RelayRequest
from shared.persistence import surely
from shared.settings import PoolSettings, Settings
from workers.bookkeeping import BegunJob, Bookkeeping
from workers.interruption import Section, Watch
from workers.leases import Lease
from workers.outcomes import Done, Failed, Outcome, Stopped
from workers.pauses import LONGEST, Pauses
from workers.publisher import Publisher
from workers.relay import Attempt
from workers.tokens import AccessToken, TokenStore
from workers.upstream import new_session
from workers.waiting_line import WaitingLine

log = logging.getLogger("farm.worker")
#: Seconds that an idle worker waits before it asks Redis again; long, because nothing is lost by waiting.
WAIT = 60.0
#: Seconds that RQ shows a worker which no longer gives a sign of life, less the 60 that RQ adds.
WORKER_TTL = 60
#: Longest pause before a lost Redis is tried again, in seconds.
LONGEST_PAUSE = 2.0
#: Faults of the upstream rather than of one account, and the longest pause in seconds that they give an account.
UPSTREAM_FAULTS = ("upstream_error", "unreachable", "timeout", "cut")
UPSTREAM_PAUSE = 4.0


def relay(request: dict[str, Any]) -> None:
    """What the farm's jobs name as their function; a worker without a credential can't run them."""
    raise RuntimeError("this job runs only in a worker of the farm, which is bound to a credential")


@dataclass(frozen=True)
class Surroundings:
    """What all workers of a process share."""

    settings: Settings
    redis: Redis
    connections: ConnectionPool
    publisher: Publisher
    watch: Watch
    counters: Counters
    tokens: TokenStore
    #: Moves a credential to another state: pool, id, state, reason, until.
    move: Callable[[str, str, str, str, float], None]
    #: Whether `rq suspend` is in force.
    suspended: Callable[[], bool]


class FarmWorker(SimpleWorker):
    """One RQ worker with its credential."""

    def __init__(
        self, lease: Lease, pool: PoolSettings, queue: Queue, bookkeeping: Bookkeeping, around: Surroundings
    ) -> None:
        super().__init__(
            [queue],
            name=keys.worker_name(lease.pool, lease.credential_id),
            connection=around.redis,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            prepare_for_work=False,
            log_job_description=False,
        )
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.ip_address = "unknown"
        self.lease = lease
        self.pool = pool
        self.bookkeeping = bookkeeping
        self.around = around
        self.line = WaitingLine(around.connections, queue.key, queue.intermediate_queue_key)
        self.token = AccessToken(lease, pool, around.tokens, self.session, around.counters)
        self.pauses = Pauses()
        self.busy_since = 0.0
        self.busy_seconds = 0.0
        self._session: requests.Session | None = None
        self._section: Section | None = None
        self._stopped_early = ""
        self._stopping = Event()

    def session(self) -> requests.Session:
        """The worker's own HTTP session, made when it is first needed."""
        if self._session is None:
            self._session = new_session(self.pool.upstream_url)
        return self._session

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ would set its own timeout on the connections that all workers of the process share."""
        return connection

    # Life

    def run(self) -> None:
        """Until asked to stop: 1. wait until it may work, 2. wait for a job, 3. run it."""
        try:
            self.register_birth()
            while not self._stopping.is_set():
                if not self._may_work():
                    self._rest()
                    continue
                if self.pauses.over():
                    self._move("active")
                self._serve_next()
        finally:
            self._leave()

    def _leave(self) -> None:
        """A refresh on its way ends first; a name that belongs to another's worker by now is left alone."""
        self.line.close()
        self.token.settle()
        if self._session is not None:
            self._session.close()
        if not self.lease.lost:
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

    def beat(self, pipe: Any) -> None:
        """A sign of life into a pipeline; registers again, should Redis have lost its data."""
        self.last_heartbeat = now()
        pipe.hset(self.key, mapping={**self.serialize(), "last_heartbeat": utcformat(self.last_heartbeat)})
        pipe.hdel(self.key, "death")
        worker_registration.register(self, pipe)
        pipe.expire(self.key, self.worker_ttl + 60)
        pipe.expire(self.executions_key, self.worker_ttl + 60)

    def stop(self) -> None:
        """Asks the worker to end after the job it runs."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return bool(self._stopping.is_set())

    def kill_horse(self, sig: Any = None) -> None:
        """RQ's stop command: ends the attempt that runs, because nobody waits for it."""
        self.interrupt("client_gone")

    def works_on(self, job_id: str) -> bool:
        """Whether that job's attempt runs here, and can be interrupted."""
        return self._section is not None and any(one.job_id == job_id for one in self.executions.values())

    def stop_early(self, job_id: str) -> None:
        """A stop command that came before Redis's answer that the job has begun: the job ends before its attempt."""
        self._stopped_early = job_id

    def interrupt(self, reason: str) -> bool:
        """Ends the attempt that runs; False when none does."""
        return bool(self._section and self._section.interrupt(reason))

    def worked(self) -> float:
        """Seconds with a job in all, the one that runs included."""
        return self.busy_seconds + (time.monotonic() - self.busy_since if self.busy_since else 0.0)

    # Waiting

    def _may_work(self) -> bool:
        return self.lease.holds() and not self.around.suspended() and not self.pauses.left()

    def _rest(self) -> None:
        """Takes no job: suspended by a person, cooling, or without its lease."""
        self._show_state(WorkerStatus.SUSPENDED)
        while not self._stopping.is_set() and not self._may_work():
            self._stopping.wait(min(1.0, self.pauses.left() or 1.0))
        if not self._stopping.is_set():
            self._show_state(WorkerStatus.IDLE)

    def _show_state(self, state: WorkerStatus) -> None:
        try:
            self.set_state(state.value)
        except RedisError as error:
            log.warning("state not shown: %s", error, extra=self._fields("redis_lost"))

    def _serve_next(self) -> None:
        """Waits for a job and runs it; a Redis that is gone is tried again soon."""
        try:
            job_id = self.line.next_job(WAIT * random.uniform(0.75, 1.25))
            if job_id is not None:
                self._run_job(job_id)
        except (RedisError, OSError) as error:
            log.warning("Redis is lost: %s", error, extra=self._fields("redis_lost"))
            self._stopping.wait(random.uniform(0.2, LONGEST_PAUSE))

    # Working

    def _run_job(self, job_id: str) -> None:
        """1. Begin. 2. One attempt. 3. End it, or hand it to another worker. 4. Pause, if the credential failed."""
        self.busy_since = time.monotonic()
        execution = self.bookkeeping.new_execution(self, job_id)
        ttl = WORKER_TTL + int(self.around.settings.total_timeout)
        try:
            begun = surely(lambda: self.bookkeeping.begin(self, execution, ttl, self.lease), "a job waits to be begun")
            if begun is not None:
                self._serve(begun)
        except LeaseLost:
            self.lease.lost = True
            self.stop()
        finally:
            self.busy_seconds += time.monotonic() - self.busy_since
            self.busy_since = 0.0

    def _serve(self, begun: BegunJob) -> None:
        if begun.running:
            self.around.counters.add("collisions")
            log.error("a second request on one credential", extra=self._fields("collision"))
        if begun.request is None or begun.body is None:
            self._refuse(begun)
            return
        self.around.counters.observe("queue_wait_seconds", time.time() - begun.request.enqueued_at)
        attempt = self._attempt(begun, begun.request, begun.body)
        try:
            outcome = Stopped() if self._stopped_early == begun.job_id else attempt.run()
        except Exception:
            log.exception("an attempt failed in a way nobody foresaw", extra=self._fields("attempt_crashed"))
            outcome = attempt.crashed()
        finally:
            self._section = None
        self._settle(begun, attempt, outcome)

    def _refuse(self, begun: BegunJob) -> None:
        """A job that is not the farm's, or whose body has gone with its caller."""
        reason = "no caller waits for this request any more"
        if begun.request is not None:
            gone = Failure(410, "request_expired", reason, "server_error", begun.retries + 1)
            self.around.publisher.stream(begun.request.channel).fail(gone)
        surely(lambda: self.bookkeeping.fail(self, begun, reason), "a job waits to be ended")

    def _attempt(self, begun: BegunJob, request: RelayRequest, body: bytes) -> Attempt:
        self._section = Section(self.around.watch, self.lease.holds)
        return Attempt(
            request=request,
            body=body,
            number=begun.retries + 1,
            settings=self.around.settings,
            pool=self.pool,
            session=self.session(),
            token=self.token,
            stream=self.around.publisher.stream(request.channel, Job.key_for(begun.job_id)),
            section=self._section,
            counters=self.around.counters,
        )

    def _settle(self, begun: BegunJob, attempt: Attempt, outcome: Outcome) -> None:
        """What the end of the attempt means: for the counts, for the job, and only then for the credential."""
        if isinstance(outcome, Failed):
            self.around.counters.add("attempts", self.pool.name, outcome.outcome)
            log.info("attempt failed", extra=self._fields("attempt_failed", begun, outcome.outcome))
            self._begin_pause(outcome)
            surely(lambda: self._retry_or_give_up(begun, attempt, outcome), "a job waits to be handed on")
            self._show_pause(outcome)
            return
        reason = outcome.reason
        self.around.counters.add("attempts", self.pool.name, "ok" if reason == "done" else reason)
        self._count_end(attempt, reason)
        if isinstance(outcome, Stopped) or reason == "done":
            self.pauses.forget()
            ok = isinstance(outcome, Done)
            surely(lambda: self.bookkeeping.finish(self, begun, ok=ok), "a job waits to be ended")
        else:
            cause = f"the answer ended early: {reason}"
            surely(lambda: self.bookkeeping.fail(self, begun, cause), "a job waits to be ended")

    def _retry_or_give_up(self, begun: BegunJob, attempt: Attempt, failed: Failed) -> None:
        again = attempt.number < self.around.settings.max_attempts and time.time() < attempt.request.deadline
        if again and failed.failure.code != "total_timeout":
            self.bookkeeping.requeue(self, begun)
            return
        if attempt.give_up(failed):
            self._count_end(attempt, "timeout" if failed.outcome == "timeout" else "upstream_error")
        self.bookkeeping.fail(self, begun, f"{failed.failure.code} after {attempt.number} attempts")

    def _count_end(self, attempt: Attempt, reason: str) -> None:
        self.around.counters.add("stream_ends", reason)
        self.around.counters.observe("request_seconds", time.time() - attempt.request.enqueued_at)

    def _begin_pause(self, failed: Failed) -> None:
        """A failing credential leaves the queue for a while, or for good (I5)."""
        if failed.fatal:
            self.stop()
        elif not failed.blameless:
            most = UPSTREAM_PAUSE if failed.outcome in UPSTREAM_FAULTS else LONGEST
            self.pauses.begin(failed.retry_after, most)

    def _show_pause(self, failed: Failed) -> None:
        """Tells everybody, after the job is safe."""
        if failed.fatal:
            self._move("dead", "invalid_grant")
        elif not failed.blameless:
            self._move("cooling", failed.outcome, time.time() + self.pauses.left())

    def _move(self, state: str, reason: str = "", until: float = 0) -> None:
        try:
            self.around.move(self.pool.name, self.lease.credential_id, state, reason, until)
        except (RedisError, OSError) as error:
            log.warning("state not kept: %s", error, extra=self._fields("redis_lost", reason=state))

    def _fields(self, action: str, begun: BegunJob | None = None, reason: str | None = None) -> dict[str, Any]:
        """The fields of a log record."""
        return {
            "action": action,
            "worker": self.name,
            "credential_id": self.lease.credential_id,
            "request_id": begun.job_id if begun else None,
            "attempt": begun.retries + 1 if begun else None,
            "reason": reason,
        }


def spawn(worker: FarmWorker, ended: Callable[[FarmWorker], None]) -> gevent.Greenlet:
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
