"""Settles a job after its attempt: counts, request log, retry or error reply, and the credential's health."""

import json
import logging
import time
from dataclasses import replace

import gevent
from redis.exceptions import RedisError
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.worker import BaseWorker

from shared import clock, names
from shared.backoff import compute_backoff
from shared.credentials.evidence import UPSTREAM, Evidence
from shared.protocol.messages import Failure
from shared.redis_connection.retry import retry_forever
from shared.response.usage import Usage
from workers.attempt.attempt import Attempt
from workers.attempt.blame import TriedCredential, decode_tried, sum_pauses, summarize_tried
from workers.attempt.delivery import to_milliseconds
from workers.attempt.outcomes import FINAL_OUTCOMES, TOKEN_WAITS, Failed, Outcome, Stopped, reject_login
from workers.jobs.job_records import JobCost, StartedJob, lost_request_cost, unreadable_failure
from workers.jobs.rq_bookkeeping import Bookkeeping, FailedAttempt, Requeued
from workers.worker.credential_health import UPSTREAM_FAULTS, CredentialHealth
from workers.worker.leased_credential import LeasedCredential
from workers.worker.log_fields import build_log_fields

log = logging.getLogger("farm.worker")
#: Verdicts on a request, as commands to the workers of the credentials that have tried it.
CULPRIT, SERVED = "culprit", "served"
#: Seconds until a credential may try a request once more; doubled with each attempt, up to the maximum.
RETRY_DELAY_SECONDS, MAX_RETRY_DELAY_SECONDS = 0.5, 4.0


class JobCompletion:
    """Settles the jobs of one worker.

    Finishing a job that succeeded is left to the JobRunner, which starts the next one in the same round trip.
    """

    def __init__(self, worker: BaseWorker, credential: LeasedCredential, bookkeeping: Bookkeeping) -> None:
        self._worker = worker
        self._credential = credential
        self._services = credential.services
        self._bookkeeping = bookkeeping
        self._health = credential.health
        self._activity = credential.activity
        #: When the worker should look for a waiting retry that only it may run, by the monotonic clock.
        self.look_at = float("inf")

    def settle(self, job: StartedJob, attempt: Attempt, outcome: Outcome) -> JobCost | None:
        """Returns the cost of a job that is complete or was stopped, which the caller must still finish.

        Returns None for any other: it has been requeued or failed.
        """
        counters, pool = self._services.counters, self._credential.pool
        if limits := attempt.limit_headers():
            self._activity.record_limits(limits, attempt.answered_at)
            self._health.rest(attempt.exhausted_seconds(), attempt.upstream_status, attempt.limited_model)
        if isinstance(outcome, Failed):
            counters.increment("attempts", pool.configured_name, outcome.outcome)
            fields = build_log_fields(
                self._worker, self._credential.lease, "attempt_failed", job, reason=outcome.outcome
            )
            log.info("attempt failed", extra=fields)
            self._settle_failure(job, attempt, outcome)
            return None
        if job.tried:
            attempt.delivery.tried = summarize_tried(decode_tried(job.tried))
        reason = outcome.reason
        counters.increment("attempts", pool.configured_name, "ok" if reason == "done" else reason)
        self._count_end(attempt, reason)
        self._record_end(job, attempt, reason)
        cost = self._record_usage(attempt, reason)
        if isinstance(outcome, Stopped) or reason == "done":
            return cost
        self._fail(job, f"the response ended early: {reason}", cost)
        return None

    def _record_end(self, job: StartedJob, attempt: Attempt, reason: str) -> None:
        """Counts the attempt, unless its caller has left, or the upstream's error was the caller's."""
        delivery, health = attempt.delivery, self._health
        if not delivery.is_served or reason == "client_gone":
            self._activity.record_used()
        elif reason == "done":
            self._activity.record_served(delivery.first_byte_at - delivery.started_at, clock.now())
            health.record_success(delivery.request.key)
            if health.models.has_rested:
                health.record_model_served(attempt.limited_model, delivery.started_at)
            self._tell_tried(job, SERVED)
        else:
            code = delivery.failure.code if delivery.failure else reason
            evidence = Evidence(UPSTREAM, attempt.upstream_status, code)
            self._activity.record_failure(reason, evidence, is_attempt=True)

    def _settle_failure(self, job: StartedJob, attempt: Attempt, failed: Failed) -> None:
        request, health = attempt.delivery.request, self._health
        was_probe = health.record_failure(failed, request, attempt.delivery.started_at)
        health.cooldown.extend(failed.rest_seconds)
        attempts = [*decode_tried(job.tried), describe_attempt(health, attempt, failed)]
        attempt.delivery.tried = summarize_tried(attempts)
        if not was_probe and health.is_request_to_blame(attempts, failed, request, attempt.limited_model):
            health.take_back(request.id)
            self._activity.record_used()
            penalty = sum_pauses(attempts, self._services.settings.cooling_limit)
            self._tell_tried(job, CULPRIT)
            retry_forever(lambda: self._reply_with_error(job, attempt, failed, penalty), "a job cannot be failed")
            return
        latest = attempts[-1]
        # The breaker has a backoff of its own for probes.
        is_breakers = was_probe and failed.outcome in UPSTREAM_FAULTS
        if not is_breakers and health.begin_cooldown(failed, request, attempt.limited_model):
            latest = replace(latest, paused_at=clock.now())
        is_free = was_probe or failed.outcome in TOKEN_WAITS
        self.retry_or_reply(job, attempt, failed, "" if is_free else latest.encode())
        health.publish_state(failed)

    def _tell_tried(self, job: StartedJob, verdict: str) -> None:
        """Tells the credentials that have tried the job before what has become of it, without waiting for it."""
        if job.tried:
            gevent.spawn(self._publish_verdict, job, verdict)

    def _publish_verdict(self, job: StartedJob, verdict: str) -> None:
        message = json.dumps({"command": verdict, "request_id": job.job_id})
        try:
            for credential_id in {attempt.credential_id for attempt in decode_tried(job.tried)}:
                worker_name = names.worker_name(self._credential.pool.name, credential_id)
                self._services.redis.publish(PUBSUB_CHANNEL_TEMPLATE % worker_name, message)
        except RedisError as error:
            fields = build_log_fields(self._worker, self._credential.lease, "redis_lost", job, reason=verdict)
            log.warning("the verdict on a request is not published: %s", error, extra=fields)

    def reject(self, job: StartedJob) -> None:
        """Fails a job that can't be read, or whose body has expired, and tells its caller at once (I7)."""
        if job.request is None:
            self._reject_unreadable(job)
            return
        reason = "no caller is waiting for this request any more"
        failure = Failure(410, "request_expired", reason, "server_error", job.retries + 1)
        self._services.streams.open_stream(job.request.channel).send_failure(failure)
        self._fail(job, reason, lost_request_cost(job.request, failure))

    def _reject_unreadable(self, job: StartedJob) -> None:
        unreadable = retry_forever(
            lambda: self._bookkeeping.describe_unreadable(job.job_id), "an unreadable job cannot be failed"
        )
        failure = unreadable_failure(job.retries + 1)
        fields = build_log_fields(self._worker, self._credential.lease, "job_unreadable", job)
        log.error("a job can't be read: it is not the farm's, broken, or of a newer version", extra=fields)
        if unreadable.channel:
            self._services.streams.open_stream(unreadable.channel).send_failure(failure)
        self._fail(job, failure.message, unreadable.cost)

    def retry_or_reply(self, job: StartedJob, attempt: Attempt, failed: Failed, tried: str) -> None:
        """Requeues the job of a failed attempt for another credential, or sends the caller the error.

        `tried`: the attempt's entry in the job's list of tried credentials; '' for one that does not count.
        """
        retry_forever(
            lambda: self._retry_or_reply_once(job, attempt, failed, tried), "a job cannot be requeued or failed"
        )

    def _retry_or_reply_once(self, job: StartedJob, attempt: Attempt, failed: Failed, tried: str) -> None:
        delivery = attempt.delivery
        if failed.fatal and names.is_private(self._credential.pool.name):
            failed = reject_login(failed, delivery.attempt_number)
            has_retries = False
        else:
            has_retries = not tried or delivery.attempt_number < self._services.settings.max_attempts
        if has_retries and clock.now() < delivery.request.deadline and failed.failure.code != "total_timeout":
            delay = 0.0 if failed.blameless else compute_retry_delay(delivery.attempt_number)
            failed_attempt = FailedAttempt(
                tried,
                delay,
                only_others=bool(tried) and failed.outcome in FINAL_OUTCOMES,
                is_model_limited=self._health.models.is_resting(attempt.limited_model),
            )
            entry = self._build_log_entry(attempt, "client_gone", None)
            requeued = self._bookkeeping.requeue(self._worker, job, failed_attempt, entry)
            if requeued is Requeued.FOR_TRIED:
                self.look_at = time.monotonic() + delay
            if requeued is not Requeued.NOBODY_LEFT:
                return
        self._reply_with_error(job, attempt, failed)

    def _reply_with_error(self, job: StartedJob, attempt: Attempt, failed: Failed, penalty: float = 0.0) -> None:
        """Ends the job with the upstream's error, or ours. `penalty`: seconds charged beside those worked."""
        end_reason = "timeout" if failed.outcome == "timeout" else "upstream_error"
        if attempt.delivery.reply_with_error(failed):
            self._count_end(attempt, end_reason)
        reason = f"{failed.failure.code} after {attempt.delivery.attempt_number} attempts"
        cost = replace(self._record_usage(attempt, end_reason), penalty_seconds=penalty)
        self._bookkeeping.fail(self._worker, job, reason, cost)

    def _fail(self, job: StartedJob, reason: str, cost: JobCost) -> None:
        retry_forever(lambda: self._bookkeeping.fail(self._worker, job, reason, cost), "a job cannot be failed")

    def _record_usage(self, attempt: Attempt, end_reason: str) -> JobCost:
        """Counts the tokens; returns the cost for the API key (nothing without a response) and the log entry."""
        try:
            usage = attempt.usage()
        except Exception:
            fields = build_log_fields(self._worker, self._credential.lease, "usage_crashed")
            log.exception("tokens not counted", extra=fields)
            usage = Usage(estimated=True)
        entry = self._build_log_entry(attempt, end_reason, usage)
        if usage is None:
            return JobCost(entry=entry)
        counters = self._services.counters
        counters.increment("tokens", "prompt", amount=usage.prompt)
        counters.increment("tokens", "completion", amount=usage.completion)
        return JobCost(usage.total, served=True, entry=entry)

    def _build_log_entry(self, attempt: Attempt, end_reason: str, usage: Usage | None) -> str:
        return attempt.delivery.build_log_entry(end_reason, self._credential.lease.credential_id, usage).encode()

    def _count_end(self, attempt: Attempt, reason: str) -> None:
        counters = self._services.counters
        counters.increment("stream_ends", reason)
        counters.observe("request_seconds", clock.now() - attempt.delivery.request.enqueued_at)


def describe_attempt(health: CredentialHealth, attempt: Attempt, failed: Failed) -> TriedCredential:
    """The failed attempt, as the request's next credential learns of it, and the request log."""
    return replace(
        health.describe_attempt(failed),
        outcome=failed.outcome,
        status=failed.response.status if failed.response else 0,
        milliseconds=to_milliseconds(clock.now() - attempt.delivery.started_at),
        started_ms=to_milliseconds(attempt.delivery.started_at - attempt.delivery.request.enqueued_at),
    )


def compute_retry_delay(attempt_number: int) -> float:
    """Seconds until a credential that has tried a request may try it once more."""
    return compute_backoff(RETRY_DELAY_SECONDS, MAX_RETRY_DELAY_SECONDS, attempt_number - 1)
