"""The fields that log records of a worker have in common."""

from typing import Any

from rq.worker import BaseWorker

from workers.credentials.leases import Lease
from workers.jobs.job_records import StartedJob


def build_log_fields(
    worker: BaseWorker, lease: Lease, action: str, job: StartedJob | None = None, reason: str | None = None
) -> dict[str, Any]:
    """The `extra` of a log record; fields that are None are not printed."""
    return {
        "action": action,
        "worker": worker.name,
        "credential_id": lease.credential_id,
        "request_id": job.job_id if job else None,
        "attempt": job.retries + 1 if job else None,
        "reason": reason,
    }
