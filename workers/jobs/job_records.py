"""Records of a started job and of its cost. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rq.executions import Execution

from shared import keys, names
from shared.decoding import UnreadableRecord
from shared.observability.request_log import LogEntry, build_entry
from shared.protocol.job_data import parse_argument
from shared.protocol.messages import Failure, RelayRequest
from workers.jobs.pace import JobPace

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
    #: Seconds charged to the key beside those worked: the cooldowns that the request has caused.
    penalty_seconds: float = 0.0

    @property
    def args(self) -> ScriptArgs:
        """The cost as the scripts take it."""
        return (self.tokens, int(self.served))


@dataclass(frozen=True)
class UnreadableJob:
    """What is known of a job whose request can't be read."""

    #: Reply channel, '' when the job is not the farm's.
    channel: str
    #: Its log entry as a refused request; '' when the job is not the farm's.
    entry: str = ""

    @property
    def cost(self) -> JobCost:
        return JobCost(entry=self.entry)


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
    #: Its failed attempts (workers/attempt/blame.py); '' for none.
    tried: str = ""
    #: None if its account has no limits, and for a job whose worker has died: what was counted at its start stays.
    pace: JobPace | None = None
    #: Whose requests were ahead of it at admission, for the request log; '' for none.
    ahead: str = ""


def seconds_worked(job: StartedJob, at: datetime) -> float:
    """Seconds from the job's start to `at`."""
    return float((at - job.execution.created_at).total_seconds())


def unreadable_failure(attempts: int) -> Failure:
    message = "this request is of a format that the worker can't read; try again"
    return Failure(503, "job_unreadable", message, "server_error", attempts, {"retry-after": "1"})


def describe_unreadable(job_id: str, pool: str, fields: Sequence[bytes | None]) -> UnreadableJob:
    """`fields` are the job's data, FRONT_FIELD, KEY_FIELD and BAND_FIELD."""
    data, front_mark, key, band = fields
    channel = find_reply_channel(job_id, data, front_mark)
    if not channel:
        return UnreadableJob("")
    failure = unreadable_failure(1)
    entry = LogEntry(
        request=job_id,
        key=(key or b"-").decode(errors="replace"),
        pool=names.configured_pool(pool),
        band=(band or b"interactive").decode(errors="replace"),
        status=failure.status,
        attempts=failure.attempts,
        code=failure.code,
    )
    return UnreadableJob(channel, entry.encode())


def lost_request_cost(request: RelayRequest, failure: Failure) -> JobCost:
    """The cost of a request that no attempt has finished: no tokens, and a log entry with the failure."""
    entry = build_entry(request, status=failure.status, attempts=failure.attempts, code=failure.code)
    return JobCost(entry=entry.encode())


def find_reply_channel(job_id: str, data: bytes | None, front_mark: bytes | None) -> str:
    """The channel on which the caller of an unreadable job waits; '' when the job is not the farm's.

    `data` may still name it; else it follows from `front_mark`, the FRONT_FIELD of the job.
    """
    try:
        argument = parse_argument(data or b"")
    except UnreadableRecord:
        argument = None
    channel = argument.get("channel") if isinstance(argument, dict) else None
    if isinstance(channel, str) and channel:
        return channel
    front = (front_mark or b"").decode(errors="replace").rpartition(":")[2]
    return keys.reply_channel(front, job_id) if front else ""
