"""How long a credential that failed stays out of the queue: as asked, else longer each time, with jitter; no I/O."""

import random
import time

#: Seconds after the first failure without a Retry-After; doubled with each further one.
BACKOFF_SECONDS = 0.5


class Cooldown:
    """The pauses of one credential."""

    def __init__(self, limit: float) -> None:
        #: Seconds that it pauses at most, whatever the upstream asks for.
        self._limit = limit
        self._failures = 0
        self._until = 0.0

    def begin(self, retry_after: float | None, max_backoff: float = float("inf")) -> float:
        """Begins a pause after a failure; returns the seconds that are left, `most` unless the upstream asked for more.

        A pause that runs is never shortened.
        """
        self._failures += 1
        backoff = min(max_backoff, self._limit, BACKOFF_SECONDS * 2 ** min(self._failures - 1, 16)) * random.uniform(
            0.75, 1.25
        )
        seconds = max(BACKOFF_SECONDS, retry_after) if retry_after is not None else backoff
        self._until = max(self._until, time.monotonic() + min(self._limit, seconds))
        return self.remaining()

    def resume(self, seconds: float) -> None:
        """Goes on with a pause that another process began."""
        self._until = time.monotonic() + min(self._limit, seconds)

    def remaining(self) -> float:
        """Seconds until the credential may work again; 0 when it may."""
        return max(0.0, self._until - time.monotonic())

    def take_ended(self) -> bool:
        """Whether a pause has ended that nobody has taken note of; takes note of it."""
        has_ended = bool(self._until) and not self.remaining()
        if has_ended:
            self._until = 0.0
        return has_ended

    def end(self) -> None:
        """A person's word: it may work at once."""
        self._until = time.monotonic()
        self._failures = 0

    def reset_failures(self) -> None:
        """The credential answered: its failures don't count any more."""
        self._failures = 0
