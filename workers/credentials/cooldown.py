"""Cooldown of a credential: as long as Retry-After says, else exponential backoff with jitter. No I/O."""

import random
import time

#: Seconds after the first failure without Retry-After; doubled with each further one.
BACKOFF_SECONDS = 0.5


class Cooldown:
    """The cooldown of one credential."""

    def __init__(self, limit: float) -> None:
        #: Seconds of a cooldown at most, whatever Retry-After says.
        self._limit = limit
        self._failures = 0
        self._until = 0.0

    def begin(self, retry_after: float | None, max_backoff: float = float("inf")) -> float:
        """Begins a cooldown after a failure, without shortening the current one; returns its remaining seconds.

        `retry_after`: seconds, None without one. `max_backoff`: seconds without Retry-After, before jitter.
        """
        self._failures += 1
        backoff = min(max_backoff, self._limit, BACKOFF_SECONDS * 2 ** min(self._failures - 1, 16)) * random.uniform(
            0.75, 1.25
        )
        seconds = max(BACKOFF_SECONDS, retry_after) if retry_after is not None else backoff
        self._until = max(self._until, time.monotonic() + min(self._limit, seconds))
        return self.remaining()

    def extend(self, seconds: float) -> None:
        """Makes the cooldown last for at least so many seconds from now."""
        self._until = max(self._until, time.monotonic() + min(self._limit, seconds))

    def resume(self, seconds: float) -> None:
        """Continues a cooldown that another process began."""
        self._until = time.monotonic() + min(self._limit, seconds)

    def remaining(self) -> float:
        """Seconds until the cooldown ends; 0 when there is none."""
        return max(0.0, self._until - time.monotonic())

    def take_ended(self) -> bool:
        """Whether a cooldown has ended since the last call."""
        has_ended = bool(self._until) and not self.remaining()
        if has_ended:
            self._until = 0.0
        return has_ended

    def end(self) -> None:
        """Ends the cooldown now, because an operator has enabled the credential."""
        self._until = time.monotonic()
        self._failures = 0

    def reset_failures(self) -> None:
        """Resets the backoff after a success."""
        self._failures = 0
