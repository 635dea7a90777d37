"""How fast a batch gets on, and when it will be done. No I/O."""

from dataclasses import dataclass

from shared.batches.batch import IN_PROGRESS
from web.admin.batches.schemas import BatchInfo

MINUTE = 60


@dataclass(frozen=True)
class Pace:
    """On average since the batch has begun to run."""

    per_minute: float
    #: When it will be done, in seconds since the epoch; 0 if that can't be told, or it is.
    done_at: float = 0.0
    #: Whether it will expire before.
    is_too_slow: bool = False


def find_pace(batch: BatchInfo, now: float) -> Pace | None:
    """None for a batch that has not run any request yet."""
    done, ended_at = batch.completed + batch.failed, batch.finalizing_at or batch.cancelling_at
    seconds = (ended_at or now) - batch.in_progress_at
    if not (done and batch.in_progress_at and seconds > 0):
        return None
    per_second = done / seconds
    if batch.status != IN_PROGRESS:
        return Pace(MINUTE * per_second)
    done_at = now + (batch.total - done) / per_second
    return Pace(MINUTE * per_second, done_at, done_at > batch.expires_at)
