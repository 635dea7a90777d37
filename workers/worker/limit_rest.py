"""The rest of an account that has reached a limit of its settings. No I/O."""

import time

#: Shortest rest in seconds that turn.lua publishes as state `cooling` (workers/jobs/rests.lua).
MIN_PUBLISHED_SECONDS = 2.0


class LimitRest:
    """When one account may take its next request, as Redis said last. It is asked again then, however long that is."""

    def __init__(self) -> None:
        #: Whether there has ever been one.
        self.has_begun = False
        #: By the monotonic clock.
        self._begun_at, self._until = 0.0, 0.0

    def begin(self, seconds: float) -> None:
        self.has_begun = True
        self._begun_at = time.monotonic()
        self._until = self._begun_at + seconds

    def end(self) -> None:
        """Makes the worker ask now, because the limits may have changed."""
        self._until = 0.0

    def remaining(self) -> float:
        """Seconds until it ends; 0 when there is none."""
        return max(0.0, self._until - time.monotonic())

    @property
    def is_published(self) -> bool:
        return self._until - self._begun_at >= MIN_PUBLISHED_SECONDS

    def was_over_at(self, read_at: float) -> bool:
        """Whether an operator has ended it: it was published, and state `active` was read at that later time."""
        return bool(self.remaining()) and self.is_published and read_at > self._begun_at
