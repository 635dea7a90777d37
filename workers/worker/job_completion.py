"""What the end of an attempt means: for the counts, for the job and the log, and only then for the credential."""

import logging
import time
from typing import Any

from rq.worker import BaseWorker

from shared import names
from shared.protocol.messages import Failure
from shared.redis_connection.retry import retry_forever
from workers.attempt.attempt import Attempt
from workers.attempt.outcomes import Failed, Outcome, Stopped, reject_login
from workers.jobs.job_records import JobCost, StartedJob, lost_request_cost
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.response.token_meter import Usage
from workers.worker.leased_credential import LeasedCredential

log = logging.getLogger("farm.worker")


class JobCompletion:
    """Ends the jobs of one worker, but for those that went well: their end begins the next."""

    def __init__(self, worker: BaseWorker, credential: LeasedCredential, bookkeeping: Bookkeeping) -> None:
        self._worker = worker
        self._credential = credential
        self._services = credential.services
        self._bookkeeping = bookkeeping
        self._health = credential.health

    def settle(self, begun: StartedJob, attempt: Attempt, outcome: Outcome) -> JobCost | None:
        """What a job whose answer is whole, or was stopped, has spent: it is still to be ended. None for all others."""
        counters, pool = self._services.counters, self._credential.pool
        if isinstance(outcome, Failed):
            counters.increment("attempts", pool.configured_name, outcome.outcome)
            log.info(
                "attempt failed",
                extra=log_fields(self._worker, self._credential, "attempt_failed", begun, outcome.outcome),
            )
            probe = self._health.record_failure(outcome, begun.job_id, attempt.delivery.started_at)
            self._health.begin_cooldown(outcome)
            self.retry_or_reply(begun, attempt, outcome, probe=probe)
            self._health.publish_state(outcome)
            return None
        reason = outcome.reason
        counters.increment("attempts", pool.configured_name, "ok" if reason == "done" else reason)
        self._count_end(attempt, reason)
        if reason == "done":
            self._health.record_success()
        spent = self._cost(attempt, reason)
        if isinstance(outcome, Stopped) or reason == "done":
            return spent
        self._fail(begun, f"the answer ended early: {reason}", spent)
        return None

    def reject(self, begun: StartedJob) -> None:
        """A job that is not the farm's, or whose body has gone with its caller."""
        reason, spent = "no caller waits for this request any more", JobCost()
        if begun.request is not None:
            gone = Failure(410, "request_expired", reason, "server_error", begun.retries + 1)
            self._services.streams.open_stream(begun.request.channel).send_failure(gone)
            spent = lost_request_cost(begun.request, gone)
        self._fail(begun, reason, spent)

    def retry_or_reply(self, begun: StartedJob, attempt: Attempt, failed: Failed, *, probe: bool) -> None:
        """The job of an attempt that failed goes to another worker, or its caller gets the error."""
        retry_forever(
            lambda: self._retry_or_reply_once(begun, attempt, failed, probe=probe), "a job waits to be handed on"
        )

    def _retry_or_reply_once(self, begun: StartedJob, attempt: Attempt, failed: Failed, *, probe: bool) -> None:
        delivery = attempt.delivery
        if failed.fatal and names.is_private(self._credential.pool.name):
            failed = reject_login(failed, delivery.attempt_number)
            probe, again = False, False
        else:
            again = probe or delivery.attempt_number < self._services.settings.max_attempts
        if again and time.time() < delivery.request.deadline and failed.failure.code != "total_timeout":
            left = self._log_entry(attempt, "client_gone", None)
            self._bookkeeping.requeue(self._worker, begun, counts=not probe, entry_if_cancelled=left)
            return
        end = "timeout" if failed.outcome == "timeout" else "upstream_error"
        if delivery.reply_with_error(failed):
            self._count_end(attempt, end)
        reason = f"{failed.failure.code} after {delivery.attempt_number} attempts"
        self._bookkeeping.fail(self._worker, begun, reason, self._cost(attempt, end))

    def _fail(self, begun: StartedJob, reason: str, spent: JobCost) -> None:
        books = self._bookkeeping
        retry_forever(lambda: books.fail(self._worker, begun, reason, spent), "a job waits to be ended")

    def _cost(self, attempt: Attempt, end: str) -> JobCost:
        """What the request costs its API key, nothing unless the upstream has answered it, and its entry in the log."""
        try:
            usage = attempt.usage()
        except Exception:
            log.exception("tokens not counted", extra=log_fields(self._worker, self._credential, "usage_crashed"))
            usage = Usage(estimated=True)
        entry = self._log_entry(attempt, end, usage)
        if usage is None:
            return JobCost(entry=entry)
        counters = self._services.counters
        counters.increment("tokens", "prompt", amount=usage.prompt)
        counters.increment("tokens", "completion", amount=usage.completion)
        return JobCost(usage.total, served=True, entry=entry)

    def _log_entry(self, attempt: Attempt, end: str, usage: Usage | None) -> str:
        """As the request log has it."""
        return attempt.delivery.build_log_entry(end, self._credential.lease.credential_id, usage).encode()

    def _count_end(self, attempt: Attempt, reason: str) -> None:
        counters = self._services.counters
        counters.increment("stream_ends", reason)
        counters.observe("request_seconds", time.time() - attempt.delivery.request.enqueued_at)


def log_fields(
    worker: BaseWorker,
    credential: LeasedCredential,
    action: str,
    begun: StartedJob | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """The fields of a log record."""
    return {
        "action": action,
        "worker": worker.name,
        "credential_id": credential.lease.credential_id,
        "request_id": begun.job_id if begun else None,
        "attempt": begun.retries + 1 if begun else None,
        "reason": reason,
    }
