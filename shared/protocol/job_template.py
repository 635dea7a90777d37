"""Builds the hash of a relay job from a template job that RQ made.

Stands for rq.Queue.create_job, Queue._prepare_for_queue and Job.to_dict (RQ 3.0), which take longer than the rest of an
enqueue. tests/integration/shared/protocol/test_relay_queue.py compares the stored hash with that of stock RQ.
"""

import json
import zlib
from typing import Any

from rq import Queue
from rq.utils import utcformat

from shared import clock
from shared.protocol.messages import RelayRequest

#: Function that RQ calls, by name because the front must not import the workers.
RELAY_FUNCTION = "workers.worker.relay"
#: Seconds that a failed job stays in RQ's failed registry, without its body.
FAILURE_TTL_SECONDS = 600
#: Seconds beyond a job's deadline after which RQ considers the job abandoned.
GRACE_SECONDS = 60
#: zlib level for job data, which is too short to compress.
NO_COMPRESSION = 0


class JobTemplate:
    """Builds the jobs of one queue. The constructor makes a round trip to Redis."""

    def __init__(self, queue: Queue) -> None:
        job = queue.create_job(
            RELAY_FUNCTION, result_ttl=0, failure_ttl=FAILURE_TTL_SECONDS, timeout=GRACE_SECONDS, description=""
        )
        queue._prepare_for_queue(job)
        self._fields: dict[str, Any] = job.to_dict()

    def render(self, request: RelayRequest) -> dict[str, Any]:
        at = utcformat(clock.utc_now())
        call: tuple[Any, ...] = (RELAY_FUNCTION, None, (request.encode(),), {})
        return {
            **self._fields,
            "created_at": at,
            "enqueued_at": at,
            "data": zlib.compress(json.dumps(call).encode(), NO_COMPRESSION),
            "description": f"{request.method} {request.path.partition('?')[0]}",
            "timeout": int(request.deadline - request.enqueued_at) + GRACE_SECONDS,
        }
