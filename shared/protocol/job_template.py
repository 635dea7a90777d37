"""The fields of a relay job's hash as RQ writes them, made from one job that RQ made; only the first asks Redis.

Stands for rq.Queue.create_job, Queue._prepare_for_queue and Job.to_dict (RQ 3.0), which take longer than all else that
enqueueing does. tests/integration/shared/protocol/test_relay_queue.py compares what Redis holds afterwards with what
stock RQ leaves.
"""

import json
import zlib
from typing import Any

from rq import Queue
from rq.utils import now, utcformat

from shared.protocol.messages import RelayRequest

#: What a worker runs; a name, because the front must not import the workers.
RELAY_FUNCTION = "workers.worker.relay"
#: Seconds that a failed job stays in RQ's failed registry, without its body.
FAILURE_TTL_SECONDS = 600
#: Seconds that RQ waits beyond a job's own deadline before it calls the job abandoned.
GRACE_SECONDS = 60
#: zlib's level for job data: none, because they are short.
NO_COMPRESSION = 0


class JobTemplate:
    """Makes the jobs of one queue."""

    def __init__(self, queue: Queue) -> None:
        job = queue.create_job(
            RELAY_FUNCTION, result_ttl=0, failure_ttl=FAILURE_TTL_SECONDS, timeout=GRACE_SECONDS, description=""
        )
        queue._prepare_for_queue(job)
        self._fields: dict[str, Any] = job.to_dict()

    def render(self, request: RelayRequest) -> dict[str, Any]:
        """The hash of the request's job."""
        at = utcformat(now())
        call: tuple[Any, ...] = (RELAY_FUNCTION, None, (request.encode(),), {})
        return {
            **self._fields,
            "created_at": at,
            "enqueued_at": at,
            "data": zlib.compress(json.dumps(call).encode(), NO_COMPRESSION),
            "description": f"{request.method} {request.path.partition('?')[0]}",
            "timeout": int(request.deadline - request.enqueued_at) + GRACE_SECONDS,
        }
