"""Settles a job after its attempt: counts, request log, retry or error reply, and the credential's health."""

import logging

from rq.worker import BaseWorker

from shared import clock, names
from shared.protocol.messages import Failure
from shared.redis_connection.retry import retry_forever
from workers.attempt.attempt import Attempt
from workers.attempt.outcomes import Failed, Outcome, Stopped, reject_login
from workers.jobs.job_records import JobCost, StartedJob, lost_request_cost, unreadable_failure
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.response.token_meter import Usage
from workers.worker.leased_credential import LeasedCredential
from workers.worker.log_fields import build_log_fields

log = logging.getLogger("farm.worker")


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

    def settle(self, job: StartedJob, attempt: Attempt, outcome: Outcome) -> JobCost | None:
        """Returns the cost of a job that is complete or was stopped, which the caller must still finish.

        Returns None for any other: it has been requeued or failed.
        """
        counters, pool = self._services.counters, self._credential.pool
        if isinstance(outcome, Failed):
            counters.increment("attempts", pool.configured_name, outcome.outcome)
            fields = build_log_fields(
                self._worker, self._credential.lease, "attempt_failed", job, reason=outcome.outcome
            )
            log.info("attempt failed", extra=fields)
            was_probe = self._health.record_failure(outcome, job.job_id, attempt.delivery.started_at)
            self._health.begin_cooldown(outcome)
            self.retry_or_reply(job, attempt, outcome, was_probe=was_probe)
            self._health.publish_state(outcome)
            return None
        reason = outcome.reason
        counters.increment("attempts", pool.configured_name, "ok" if reason == "done" else reason)
        self._count_end(attempt, reason)
        if reason == "done":
            self._health.record_success()
        cost = self._record_usage(attempt, reason)
        if isinstance(outcome, Stopped) or reason == "done":
            return cost
        self._fail(job, f"the response ended early: {reason}", cost)
        return None

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

    def retry_or_reply(self, job: StartedJob, attempt: Attempt, failed: Failed, *, was_probe: bool) -> None:
        """Requeues the job of a failed attempt for another credential, or sends the caller the error."""
        retry_forever(
            lambda: self._retry_or_reply_once(job, attempt, failed, was_probe=was_probe),
            "a job cannot be requeued or failed",
        )

    def _retry_or_reply_once(self, job: StartedJob, attempt: Attempt, failed: Failed, *, was_probe: bool) -> None:
        delivery = attempt.delivery
        if failed.fatal and names.is_private(self._credential.pool.name):
            failed = reject_login(failed, delivery.attempt_number)
            has_retries = False
        else:
            has_retries = was_probe or delivery.attempt_number < self._services.settings.max_attempts
        if has_retries and clock.now() < delivery.request.deadline and failed.failure.code != "total_timeout":
            entry = self._build_log_entry(attempt, "client_gone", None)
            self._bookkeeping.requeue(self._worker, job, counts=not was_probe, entry_if_cancelled=entry)
            return
        end_reason = "timeout" if failed.outcome == "timeout" else "upstream_error"
        if delivery.reply_with_error(failed):
            self._count_end(attempt, end_reason)
        reason = f"{failed.failure.code} after {delivery.attempt_number} attempts"
        self._bookkeeping.fail(self._worker, job, reason, self._record_usage(attempt, end_reason))

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
