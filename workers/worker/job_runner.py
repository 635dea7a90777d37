"""The serving of jobs on one credential: begin, one attempt, end; it knows nothing of how jobs come."""

import logging
import time
from collections.abc import Callable
from functools import partial

import gevent
from rq.job import Job
from rq.worker import BaseWorker

from shared.errors import BreakerOpen, InvalidGrant, LeaseLost
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_forever
from shared.settings.schema import PoolSettings
from workers.attempt.attempt import Attempt
from workers.attempt.cancel_scope import Cancelled, CancelScope, DeadlineMonitor
from workers.attempt.delivery import Delivery
from workers.attempt.outcomes import Done, Stopped, classify_token_failure
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.jobs.job_records import JobCost, StartedJob
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.reply.reply_stream import ignore
from workers.upstream.client import UpstreamConnection
from workers.worker.job_completion import JobCompletion, log_fields
from workers.worker.leased_credential import LeasedCredential

log = logging.getLogger("farm.worker")
#: Seconds that RQ keeps a begun job's execution beyond the request's own time.
EXECUTION_GRACE_SECONDS = 60
#: Seconds after which every front knows what became of a credential.
STATE_PROPAGATION_SECONDS = 2.0


class JobRunner:
    """Serves one job after the other for one worker."""

    def __init__(
        self,
        worker: BaseWorker,
        credential: LeasedCredential,
        bookkeeping: Bookkeeping,
        may_continue: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._credential = credential
        self._services = credential.services
        self._bookkeeping = bookkeeping
        self._may_continue = may_continue
        self._settings = credential.services.settings.with_pool_timeouts(credential.pool)
        self._ttl = EXECUTION_GRACE_SECONDS + int(self._settings.total_timeout)
        self._upstream: UpstreamConnection | None = None
        self._scope: CancelScope | None = None
        self._cancelled_job_id = ""
        #: Whether Redis has just said that no job waits, and has noted that the worker does.
        self.queue_was_empty = False
        #: The web process that waits for the job that runs.
        self.front = ""
        self._busy_seconds = 0.0
        #: When the job that runs was taken, by the monotonic clock; 0 when none runs.
        self.busy_since = 0.0
        self.token = credential.token
        self.health = credential.health
        self._completion = JobCompletion(worker, credential, bookkeeping)

    def open_upstream(self) -> UpstreamConnection:
        """The worker's own connection to the upstream, made when it is first needed."""
        if self._upstream is None:
            pool = self._credential.pool
            self._upstream = UpstreamConnection(
                self._services.routes[pool.configured_name],
                self._settings.connect_timeout,
                headers=pool.headers,
                before_send=self._check_lease,
            )
        return self._upstream

    def _check_lease(self) -> None:
        """Raises Interrupted when the lease is lost: the process may have been frozen since the job was begun (I1)."""
        if not self.holds_lease():
            raise Cancelled("lease_lost")

    @property
    def pool(self) -> PoolSettings:
        """The credential's pool."""
        return self._credential.pool

    @property
    def deadlines(self) -> DeadlineMonitor:
        """What ends a section whose time is up."""
        return self._services.deadlines

    def holds_lease(self) -> bool:
        """Whether the credential may be used now."""
        return self._credential.lease.is_held()

    def first_model(self) -> str:
        """A model that the pool serves, by the upstream's name; '' when it serves whatever is asked for."""
        pool = self._credential.pool
        return pool.model_map.get(pool.models[0], pool.models[0]) if pool.models else ""

    def close(self) -> None:
        """Ends; a refresh that is on its way ends first."""
        self.token.wait_for_refresh()
        if self._upstream is not None:
            self._upstream.close()

    def seconds_worked(self) -> float:
        """Seconds with a job in all, the one that runs included."""
        return self._busy_seconds + (time.monotonic() - self.busy_since if self.busy_since else 0.0)

    def is_running(self, job_id: str) -> bool:
        """Whether that job's attempt runs here, and can be interrupted."""
        return self._scope is not None and any(one.job_id == job_id for one in self._worker.executions.values())

    def cancel_before_start(self, job_id: str) -> None:
        """A stop command that came before Redis's answer that the job has begun: the job ends before its attempt."""
        self._cancelled_job_id = job_id

    def cancel(self, reason: str) -> bool:
        """Ends the attempt that runs; False when none does."""
        return bool(self._scope and self._scope.cancel(reason))

    def run(self, job_id: str = "") -> None:
        """1. Begin. 2. One attempt. 3. End it, or hand it to another worker. 4. Pause, if the credential failed.

        Which job is begun, Redis decides; one that BLMOVE has moved is named, so that it is not lost. An end that went
        well begins the next job in the same round trip.
        """
        self.busy_since = time.monotonic()
        try:
            begun = self._begin(job_id)
            while begun is not None:
                begun = self._run_job(begun)
        except LeaseLost:
            self._credential.lease.lost = True
            self._credential.stop_signal.set()
        except BreakerOpen:
            self._breaker.mark_open()
        finally:
            self._busy_seconds += time.monotonic() - self.busy_since
            self.busy_since = 0.0

    def _begin(self, job_id: str) -> StartedJob | None:
        books, lease = self._bookkeeping, self._credential.lease
        execution = books.create_execution(self._worker, job_id)
        probe = self._breaker.probing_credential == lease.credential_id
        begun = retry_forever(
            lambda: books.begin(self._worker, execution, self._ttl, lease, probe=probe), "a job waits to be begun"
        )
        self.queue_was_empty = begun is None
        return begun

    def _end(self, begun: StartedJob, spent: JobCost, *, ok: bool) -> StartedJob | None:
        """Ends the job; returns the next one if this worker may go on at once and one waits."""
        books, worker = self._bookkeeping, self._worker
        if not self._may_continue() or not self.token.is_fresh():
            retry_forever(lambda: books.finish(worker, begun, ok=ok, cost=spent), "a job waits to be ended")
            return None
        execution = books.create_execution(worker)
        try:
            begins = retry_forever(
                lambda: books.finish_and_begin(
                    worker, begun, execution, self._ttl, self._credential.lease, ok=ok, cost=spent
                ),
                "a job waits to be ended",
            )
        except BreakerOpen:
            # Of a probe that went well the breaker is about to hear; any other worker hears of it when it asks again.
            return None
        self.queue_was_empty = begins is None
        return begins

    @property
    def _breaker(self) -> CircuitBreaker:
        return self._services.breakers[self._credential.pool.name]

    def _run_job(self, begun: StartedJob) -> StartedJob | None:
        """Serves the job, and returns the next one if its end has begun it."""
        if begun.other_executions:
            self._services.counters.increment("collisions")
            log.error(
                "a second request on one credential", extra=log_fields(self._worker, self._credential, "collision")
            )
        if begun.request is None or begun.body is None:
            self._completion.reject(begun)
            return None
        self._services.counters.observe("queue_wait_seconds", time.time() - begun.request.enqueued_at)
        attempt = self._build_attempt(begun, begun.request, begun.body)
        self.front = begun.request.front
        try:
            outcome = Stopped() if self._cancelled_job_id == begun.job_id else attempt.run()
        except Exception:
            log.exception(
                "an attempt failed in a way nobody foresaw",
                extra=log_fields(self._worker, self._credential, "attempt_crashed"),
            )
            outcome = attempt.fail_crashed()
        finally:
            self._scope = None
            self.front = ""
        spent = self._completion.settle(begun, attempt, outcome)
        return None if spent is None else self._end(begun, spent, ok=isinstance(outcome, Done))

    def reject_waiting_jobs(self) -> None:
        """Ends what waits for a private credential whose token was refused: nobody else can serve it.

        Again when every front has heard that it is dead, because until then it takes requests in.
        """
        for _ in range(2):
            try:
                while (begun := self._begin("")) is not None:
                    self._reject_login(begun)
            except (LeaseLost, BreakerOpen):
                return
            gevent.sleep(STATE_PROPAGATION_SECONDS)

    def _reject_login(self, begun: StartedJob) -> None:
        if begun.request is None or begun.body is None:
            self._completion.reject(begun)
            return
        attempt = self._build_attempt(begun, begun.request, begun.body)
        self._completion.retry_or_reply(begun, attempt, classify_token_failure(InvalidGrant("refused")), probe=False)

    def _build_attempt(self, begun: StartedJob, request: RelayRequest, body: bytes) -> Attempt:
        self._scope = CancelScope(self._services.deadlines, self._credential.lease.is_held)
        counters = self._services.counters
        cancels = self._settings.on_disconnect == "cancel"
        on_caller_gone = partial(self._scope.cancel, "client_gone") if cancels else ignore
        stream = self._services.streams.open_stream(request.channel, Job.key_for(begun.job_id), on_caller_gone)
        return Attempt(
            delivery=Delivery(request, begun.retries + 1, stream, counters, self.health.record_first_byte),
            body=body,
            settings=self._settings,
            pool=self._credential.pool,
            upstream=self.open_upstream(),
            token=self.token,
            scope=self._scope,
            counters=counters,
        )
