"""How fast a batch gets on lately, when it will be done, and whether it stands still. No I/O.

The record has samples: when so many requests had ended. They are taken while requests end, so that the last one tells
since when none has, whoever ran the batch meanwhile.
"""

from dataclasses import dataclass
from typing import Any

from shared.batches.batch import CANCELLED, EXPIRED, IN_PROGRESS, Batch, Sample

MINUTE = 60
#: Seconds that the pace is of; without so many, there is none yet; between two samples.
WINDOW_SECONDS, MIN_SECONDS, SAMPLE_SECONDS = 300, 10, 10
#: Seconds without an ended request after which a batch is said to stand still.
STILL_SECONDS = 120
#: Why requests count as failed that were not run.
SKIPPED = (f"batch_{EXPIRED}", f"batch_{CANCELLED}")


@dataclass(frozen=True)
class Pace:
    """Of a batch that runs, in the last minutes; of one that runs no more, on average."""

    #: Requests that end a minute; None if that can't be told.
    per_minute: float | None = None
    #: When it will be done, in seconds since the epoch; 0 if that can't be told.
    done_at: float = 0.0
    #: Seconds since a request has ended, if they are many; else 0.
    still_seconds: float = 0.0


def find_pace(batch: Batch, now: float) -> Pace:
    if not batch.in_progress_at:
        return Pace()
    if batch.status != IN_PROGRESS:
        return find_average(batch)
    samples, done = list_samples(batch), count_run(batch)
    still_seconds = now - find_last_end(samples, done, now)
    at, count = find_baseline(samples, now)
    ended, seconds = done - count, now - at
    if still_seconds < STILL_SECONDS:
        still_seconds = 0.0
    if ended <= 0 or seconds < MIN_SECONDS:
        return Pace(0.0 if still_seconds else None, still_seconds=still_seconds)
    done_at = 0.0 if batch.hindrance else now + (batch.total - done) * seconds / ended
    return Pace(MINUTE * ended / seconds, done_at, still_seconds)


def describe_progress(batch: Batch, now: float) -> dict[str, Any]:
    """What the admin API and the commands tell of how it gets on."""
    pace = find_pace(batch, now)
    return {
        "per_minute": None if pace.per_minute is None else round(pace.per_minute, 2),
        "estimated_end_at": int(pace.done_at),
        "still_seconds": int(pace.still_seconds),
        "hindrance": batch.hindrance if batch.is_unfinished else "",
    }


def find_average(batch: Batch) -> Pace:
    seconds = (batch.finalizing_at or batch.cancelling_at) - batch.in_progress_at
    count = count_run(batch)
    return Pace(MINUTE * count / seconds) if count and seconds > 0 else Pace()


def count_run(batch: Batch) -> int:
    """Requests that were run to their end."""
    return batch.completed + batch.failed - sum(batch.failures.get(code, 0) for code in SKIPPED)


def list_samples(batch: Batch) -> list[Sample]:
    """Never empty."""
    return batch.samples or [[batch.in_progress_at, 0]]


def find_last_end(samples: list[Sample], done: int, now: float) -> float:
    """When a request ended last, to some seconds: had one ended long after the last sample, there were another."""
    at, count = samples[-1]
    if done != count:
        return min(now, at + SAMPLE_SECONDS)
    return next(at for at, count in samples if count == done)


def find_baseline(samples: list[Sample], now: float) -> Sample:
    """The sample from which on the pace is measured: the last one before the window, or the first."""
    start = max(0, sum(at <= now - WINDOW_SECONDS for at, _ in samples) - 1)
    # A standstill at its beginning is not counted.
    while start + 1 < len(samples) and samples[start + 1][1] == samples[start][1]:
        start += 1
    return samples[start]


def add_sample(batch: Batch, ended_at: int, now: float) -> list[Sample] | None:
    """The samples with another one, if it is due; `ended_at`: when a request was last seen to end."""
    samples, done = list_samples(batch), count_run(batch)
    at, count = samples[-1]
    if done == count or now - at < SAMPLE_SECONDS:
        return None
    if ended_at - at >= WINDOW_SECONDS:
        # It goes on after a standstill, which the pace is not of.
        return [[ended_at, done]]
    kept = samples[samples.index(find_baseline(samples, ended_at)) :]
    return [*kept, [ended_at, done]]


def add_resumption(batch: Batch, now: int) -> list[Sample] | None:
    """The samples of a batch that stood still as something hindered it, and now can go on: its pace begins anew."""
    samples, done = list_samples(batch), count_run(batch)
    ended_at = find_last_end(samples, done, now)
    return [[int(ended_at), done], [now, done]] if now - ended_at >= STILL_SECONDS else None
