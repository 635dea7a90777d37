"""Records of a started job and of its cost. No I/O."""

import json
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rq.executions import Execution

from shared.observability.request_log import build_entry
from shared.protocol.messages import Failure, RelayRequest

#: Arguments of a Lua script.
ScriptArgs = tuple[Any, ...]


@dataclass(frozen=True)
class JobCost:
    """What a job has used of its API key's limits: nothing if it failed."""

    tokens: int = 0
    #: Whether it counts towards the quota of requests.
    served: bool = False
    #: The job's entry in the request log; '' for none.
    entry: str = ""

    @property
    def args(self) -> ScriptArgs:
        """The cost as the scripts take it."""
        return (self.tokens, int(self.served))


@dataclass
class StartedJob:
    """A job that a worker has started."""

    job_id: str
    execution: Execution
    #: Attempts that have failed before.
    retries: int
    #: Other executions that the worker has at the same time; any is a collision.
    other_executions: int
    request: RelayRequest | None
    body: bytes | None
    band: str = "interactive"


def seconds_worked(job: StartedJob, at: datetime) -> float:
    """Seconds from the job's start to `at`."""
    return float((at - job.execution.created_at).total_seconds())


def lost_request_cost(request: RelayRequest, failure: Failure) -> JobCost:
    """The cost of a request that no attempt has finished: no tokens, and a log entry with the failure."""
    entry = build_entry(request, status=failure.status, attempts=failure.attempts, code=failure.code)
    return JobCost(entry=entry.encode())


def decode_request(data: bytes) -> RelayRequest | None:
    """The relay request in RQ's job data (function, instance, args, kwargs); None when the job is not the farm's."""
    try:
        arguments = json.loads(zlib.decompress(data))[2]
        return RelayRequest.decode(arguments[0])
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError, TypeError, IndexError, KeyError):
        return None
