"""Runs jobs on one credential: starts a job, makes one attempt, settles it."""

import logging
import time
from collections.abc import Callable
from functools import partial

import gevent
from rq.job import Job
from rq.worker import BaseWorker

from shared import clock
from shared.errors import AccountResting, BreakerOpen, InvalidGrant, LeaseLost, NoAllowedJob, PoolPaused
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_forever
from shared.settings.schema import PoolSettings
from workers.attempt.attempt import Attempt
from workers.attempt.cancel_scope import Cancelled, CancelScope, DeadlineMonitor
from workers.attempt.delivery import Delivery
from workers.attempt.outcomes import Done, Outcome, Stopped, classify_token_failure
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.jobs.job_records import JobCost, StartedJob
from workers.jobs.pace import JobPace
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.reply.reply_stream import ignore
from workers.upstream.client import UpstreamConnection
from workers.worker.job_completion import JobCompletion
from workers.worker.leased_credential import LeasedCredential
from workers.worker.log_fields import build_log_fields

log = logging.getLogger("farm.worker")
#: Seconds that RQ keeps a job's execution beyond the request's total timeout.
EXECUTION_GRACE_SECONDS = 60
#: Seconds after the end of a rest at which a worker looks, so that Redis finds it ended.
LOOK_MARGIN_SECONDS = 0.002
#: Seconds after which every front has read a new credential state.
STATE_PROPAGATION_SECONDS = 2.0


class JobRunner:
    """Runs the jobs of one worker, one at a time."""

    def __init__(
        self,
        worker: BaseWorker,
        credential: LeasedCredential,
        bookkeeping: Bookkeeping,
        can_continue: Callable[[], bool],
    ) -> None:
        """`can_continue` tells whether the next job may start right after the last."""
        self._worker = worker
        self._credential = credential
        self._services = credential.services
        self._bookkeeping = bookkeeping
        self._can_continue = can_continue
        self._settings = credential.services.settings.with_pool_timeouts(credential.pool)
        self._ttl = EXECUTION_GRACE_SECONDS + int(self._settings.total_timeout)
        self._upstream: UpstreamConnection | None = None
        self._scope: CancelScope | None = None
        self._cancelled_job_id = ""
        #: Pace of the running job, None for none.
        self._job_pace: JobPace | None = None
        #: Whether Redis had no job at the last look, and has listed the worker as idle.
        self.queue_was_empty = False
        #: Whether a job waits that no BLMOVE would hand over: a retry, for a credential that has not tried it.
        self.should_look = False
        #: The front that waits for the running job, '' for none.
        self.front = ""
        self._busy_seconds = 0.0
        #: API key of the running request, '' for none, and until when its time was counted, by the monotonic clock.
        self._served_key, self._counted_at = "", 0.0
        #: When the worker took a job, by the monotonic clock; 0 while it has none.
        self.busy_since = 0.0
        self.token = credential.token
        self.health = credential.health
        self._completion = JobCompletion(worker, credential, bookkeeping)

    def open_upstream(self) -> UpstreamConnection:
        """The worker's own connection to the upstream, created on first use."""
        if self._upstream is None:
            pool = self._credential.pool
            self._upstream = UpstreamConnection(
                self._services.routes[pool.configured_name],
                self._settings.connect_timeout,
                headers=pool.headers,
                before_send=self._prepare_send,
            )
        return self._upstream

    def _prepare_send(self) -> None:
        """Counts a request towards the account's limits, unless its job has been counted.

        Raises AccountResting, RedisError; Cancelled when the lease is lost: the process may have been frozen since the
        job started (I1).
        """
        paced = self._job_pace
        if paced is not None and not paced.sent_at:
            paced.sent_at = time.monotonic()
        elif pace := self._credential.pace:
            pace.count(is_repeat=paced is not None)
        if not self.holds_lease():
            self._services.counters.increment("turns_refused", "send")
            raise Cancelled("lease_lost")

    @property
    def pool(self) -> PoolSettings:
        return self._credential.pool

    @property
    def deadlines(self) -> DeadlineMonitor:
        return self._services.deadlines

    def holds_lease(self) -> bool:
        """Whether the credential may be used now."""
        return self._credential.lease.is_held()

    def first_model(self) -> str:
        """The upstream's name of the pool's first model; '' when the pool is not limited to certain models."""
        pool = self._credential.pool
        return pool.model_map.get(pool.models[0], pool.models[0]) if pool.models else ""

    def close(self) -> None:
        """Closes the connection after a token refresh in flight has ended."""
        self.token.wait_for_refresh()
        if self._upstream is not None:
            self._upstream.close()

    def seconds_worked(self) -> float:
        """Total seconds with a job, the running one included."""
        return self._busy_seconds + (time.monotonic() - self.busy_since if self.busy_since else 0.0)

    def count_key_seconds(self) -> None:
        """Counts the running request's time for its API key, since the last call."""
        if self._served_key:
            since, self._counted_at = self._counted_at, time.monotonic()
            self._services.key_seconds.add(self._credential.pool.name, self._served_key, self._counted_at - since)

    def is_running(self, job_id: str) -> bool:
        """Whether that job's attempt is running, so that `cancel` can end it."""
        return self._scope is not None and any(e.job_id == job_id for e in self._worker.executions.values())

    def cancel_before_start(self, job_id: str) -> None:
        """Cancels a job before its attempt: its stop command may overtake Redis's reply that starts it."""
        self._cancelled_job_id = job_id

    def cancel(self, reason: str) -> bool:
        """Cancels the running attempt; False when there is none."""
        return bool(self._scope and self._scope.cancel(reason))

    def run(self, job_id: str = "", *, trial: bool = False) -> None:
        """Runs jobs until there is none or the worker may not continue.

        1. Start the job. 2. Make one attempt. 3. Finish it, or requeue it for another credential. 4. Start a cooldown
        if the credential failed. After a success 3 and the next 1 share a round trip.

        `job_id` is the job that BLMOVE has moved, which must not be lost; Redis may start another one in its place.
        `trial`: see run_trial.
        """
        self.busy_since = time.monotonic()
        try:
            job = self._begin(job_id, trial=trial)
            while job is not None:
                job = self._run_job(job)
        except LeaseLost:
            self._services.counters.increment("turns_refused", "begin")
            self._credential.lease.lost = True
            self._credential.stop_signal.set()
        except BreakerOpen:
            self._breaker.mark_open()
        except PoolPaused:
            self._services.suspension.mark_paused(self.pool.name)
        except AccountResting as rest:
            self.health.limit_rest.begin(rest.seconds)
            self._services.counters.increment("account_rests", self._credential.pool.configured_name, rest.limit)
        finally:
            self._busy_seconds += time.monotonic() - self.busy_since
            self.busy_since = 0.0

    def run_trial(self) -> None:
        """Runs one job of another model than that because of which the credential rests as a whole, if one waits.

        If it is served, the credential no longer rests as a whole, and further jobs follow.
        """
        try:
            if self.health.ensure_fresh_token():
                self.run(trial=True)
        finally:
            self.health.models.end_trial()

    def run_direct(self, request: RelayRequest, body: bytes) -> tuple[Attempt, Outcome]:
        """Makes one attempt of a request that has no job, which its front can cancel from now on."""
        attempt = self._build_attempt(request, body)
        self._services.streams.stream_begins(attempt.delivery.stream)
        self.front, self.busy_since = request.front, time.monotonic()
        try:
            return attempt, attempt.run()
        finally:
            self._scope = None
            self.front = ""
            self._busy_seconds += time.monotonic() - self.busy_since
            self.busy_since = 0.0

    def _begin(self, job_id: str, *, trial: bool = False, is_paced: bool = True) -> StartedJob | None:
        bookkeeping, lease = self._bookkeeping, self._credential.lease
        execution = bookkeeping.create_execution(self._worker, job_id)
        probe = self._breaker.probing_credential == lease.credential_id
        pace = self._credential.pace if is_paced else None
        self._note_look()
        try:
            job = retry_forever(
                lambda: bookkeeping.begin(
                    self._worker, execution, self._ttl, lease, probe=probe, trial=trial, pace=pace
                ),
                "a job cannot be started",
            )
        except NoAllowedJob as rest:
            job = None
            self._look_in(rest.seconds)
        self.queue_was_empty = job is None and not trial
        return job

    def _look_in(self, seconds: float) -> None:
        """The credential rests for a model for so long: then the worker looks for a job of itself."""
        look_at = time.monotonic() + seconds + LOOK_MARGIN_SECONDS
        self._completion.look_at = min(self._completion.look_at, look_at)

    @property
    def seconds_to_look(self) -> float:
        """Seconds until the worker should look for a job of itself; inf if BLMOVE hands over whatever comes."""
        return 0.0 if self.should_look else max(0.0, self._completion.look_at - time.monotonic())

    def _note_look(self) -> None:
        """The worker looks for a job now; to be called before it asks Redis."""
        self.should_look = False
        if self._completion.look_at <= time.monotonic():
            self._completion.look_at = float("inf")

    def _finish(self, job: StartedJob, cost: JobCost, *, ok: bool) -> StartedJob | None:
        """Finishes the job; returns the next one, if there is one and this worker may continue."""
        bookkeeping, worker = self._bookkeeping, self._worker
        if not self._can_continue() or not self.token.is_usable():
            retry_forever(lambda: bookkeeping.finish(worker, job, ok=ok, cost=cost), "a job cannot be finished")
            return None
        execution, pace = bookkeeping.create_execution(worker), self._credential.pace
        self._note_look()
        try:
            next_job = retry_forever(
                lambda: bookkeeping.finish_and_begin(
                    worker, job, execution, self._ttl, self._credential.lease, ok=ok, cost=cost, pace=pace
                ),
                "a job cannot be finished",
            )
        except BreakerOpen:
            # A probe that succeeded is about to close the breaker; any other worker learns of it at its next start.
            return None
        except NoAllowedJob as rest:
            next_job = None
            self._look_in(rest.seconds)
        self.queue_was_empty = next_job is None
        return next_job

    @property
    def _breaker(self) -> CircuitBreaker:
        return self._services.breakers[self._credential.pool.name]

    def _run_job(self, job: StartedJob) -> StartedJob | None:
        """Runs and settles the job; returns the next one if finishing this one has started it."""
        if job.other_executions:
            self._services.counters.increment("collisions")
            fields = build_log_fields(self._worker, self._credential.lease, "collision")
            log.error("a second request on one credential", extra=fields)
        if job.request is None or job.body is None:
            self._completion.reject(job)
            return None
        self._services.counters.observe("queue_wait_seconds", clock.now() - job.request.enqueued_at)
        attempt = self._build_attempt(job.request, job.body, job)
        self.front, self._job_pace = job.request.front, job.pace
        in_flight, credential_id = self._services.in_flight, self._credential.lease.credential_id
        in_flight.begin(self._credential.pool.configured_name, credential_id, job.other_executions)
        self._served_key, self._counted_at = job.request.key, time.monotonic()
        try:
            outcome = Stopped() if self._cancelled_job_id == job.job_id else attempt.run()
        except Exception:
            fields = build_log_fields(self._worker, self._credential.lease, "attempt_crashed")
            log.exception("an attempt failed unexpectedly", extra=fields)
            outcome = attempt.fail_crashed()
        finally:
            in_flight.end(credential_id)
            self.count_key_seconds()
            self._scope = self._job_pace = None
            self.front = self._served_key = ""
        cost = self._completion.settle(job, attempt, outcome)
        return None if cost is None else self._finish(job, cost, ok=isinstance(outcome, Done))

    def reject_waiting_jobs(self) -> None:
        """Fails the waiting jobs of a private credential whose token was refused: no other credential can serve them.

        A second pass fails those that fronts have admitted before they read that the credential is dead.
        """
        for _ in range(2):
            try:
                while (job := self._begin("", is_paced=False)) is not None:
                    self._reject_login(job)
            except (LeaseLost, BreakerOpen, PoolPaused):
                return
            gevent.sleep(STATE_PROPAGATION_SECONDS)

    def _reject_login(self, job: StartedJob) -> None:
        if job.request is None or job.body is None:
            self._completion.reject(job)
            return
        attempt = self._build_attempt(job.request, job.body, job)
        failed = classify_token_failure(InvalidGrant("refused"))
        self._completion.retry_or_reply(job, attempt, failed, self.health.describe_attempt(failed).encode())

    def _build_attempt(self, request: RelayRequest, body: bytes, job: StartedJob | None = None) -> Attempt:
        self._scope = CancelScope(self._services.deadlines, self._credential.lease.is_held)
        counters = self._services.counters
        should_cancel = self._settings.on_disconnect == "cancel"
        on_caller_gone = partial(self._scope.cancel, "client_gone") if should_cancel else ignore
        stream = self._services.streams.open_stream(
            request.channel, Job.key_for(job.job_id) if job else "", on_caller_gone
        )
        delivery = Delivery(request, 1, stream, counters, self.health.record_first_byte)
        if job:
            delivery.attempt_number, delivery.ahead = job.retries + 1, job.ahead
        return Attempt(
            delivery=delivery,
            body=body,
            settings=self._settings,
            pool=self._credential.pool,
            open_upstream=self.open_upstream,
            token=self.token,
            scope=self._scope,
            counters=counters,
            stream_options=self._services.stream_options[self._credential.pool.configured_name],
        )
