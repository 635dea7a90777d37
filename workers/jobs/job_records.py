"""A job as its worker has it, and what it has spent; it asks no Redis."""

import json
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rq.executions import Execution

from shared.observability.request_log import build_entry
from shared.protocol.messages import Failure, RelayRequest

#: Arguments of a script.
ScriptArgs = tuple[Any, ...]


@dataclass(frozen=True)
class JobCost:
    """What a job has used of its API key's limits; a job that failed has cost nothing."""

    tokens: int = 0
    #: Whether it counts for the quota of requests.
    served: bool = False
    #: Its entry in the request log, '' for none.
    entry: str = ""

    @property
    def args(self) -> ScriptArgs:
        """For the scripts."""
        return (self.tokens, int(self.served))


@dataclass
class StartedJob:
    """A job that a worker has begun."""

    job_id: str
    execution: Execution
    #: Attempts that failed before.
    retries: int
    #: Executions that the worker had already; more than its slots is a collision.
    other_executions: int
    request: RelayRequest | None
    body: bytes | None
    band: str = "interactive"


def seconds_worked(job: StartedJob, at: datetime) -> float:
    """Seconds between the job's beginning and then."""
    return float((at - job.execution.created_at).total_seconds())


def lost_request_cost(request: RelayRequest, failure: Failure) -> JobCost:
    """Of a request that no attempt has ended: it costs nothing, and the log tells why it failed."""
    entry = build_entry(request, status=failure.status, attempts=failure.attempts, code=failure.code)
    return JobCost(entry=entry.encode())


def decode_request(data: bytes) -> RelayRequest | None:
    """The relay request out of RQ's job data (function, instance, arguments, keywords); None when it is another job."""
    try:
        arguments = json.loads(zlib.decompress(data))[2]
        return RelayRequest.decode(arguments[0])
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError, TypeError, IndexError, KeyError):
        return None
