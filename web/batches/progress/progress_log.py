"""Notes in the record of a batch when its requests ended, and what keeps them from being run."""

from shared import clock
from shared.batches.batch import Batch
from shared.batches.pace import add_resumption, add_sample, count_run, find_last_end, list_samples
from web.batches.transitions import Transitions


class ProgressLog:
    """Of one batch, by the front that has its lease."""

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        #: How many requests had ended at the last look, and when that had changed; -1 before the first look.
        self._done = -1
        self._ended_at = 0.0

    def look(self, batch: Batch) -> float:
        """Seconds since a request has ended, as this front has seen it, or those before it."""
        now, done = clock.now(), count_run(batch)
        if self._done < 0:
            self._done, self._ended_at = done, find_last_end(list_samples(batch), done, now)
        elif done != self._done:
            self._done, self._ended_at = done, now
        return now - self._ended_at

    def note(self, batch: Batch, hindrance: str) -> None:
        """Writes what has changed: a hindrance at once, samples every few seconds. Raises RedisError."""
        now = clock.now()
        samples = add_sample(batch, int(self._ended_at), now)
        if batch.hindrance and not hindrance and samples is None:
            samples = add_resumption(batch, int(now))
        if samples is not None or hindrance != batch.hindrance:
            self._transitions.note(batch, samples or batch.samples, hindrance)
