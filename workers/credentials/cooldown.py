"""Cooldown of a credential: as long as Retry-After says, else exponential backoff with jitter. No I/O."""

import random
import time
from itertools import count

from shared.backoff import compute_backoff

#: Seconds after the first failure without Retry-After; doubled with each further one.
BACKOFF_SECONDS = 0.5
#: Longest rest in seconds whose end the upstream has named as the reset of a limit: a day, and an hour for its clock.
MAX_KNOWN_REST_SECONDS = 25 * 3600.0
#: Causes of the present cooldown that are remembered, so that they can be taken back.
MAX_CAUSES = 100


class Cooldown:
    """The cooldown of one credential. Each request that has caused or prolonged it can be taken back."""

    def __init__(self, limit: float) -> None:
        #: Seconds of a cooldown at most, whatever Retry-After says.
        self._limit = limit
        #: Cause -> end of the cooldown that it asks for, by the monotonic clock; since the last success.
        self._ends: dict[str, float] = {}
        self._anonymous_causes = count()
        #: Whether the end of a cooldown has not been reported yet.
        self._is_unreported = False

    def begin(
        self,
        retry_after: float | None,
        max_backoff: float = float("inf"),
        cause: str = "",
        *,
        first_backoff: float = BACKOFF_SECONDS,
    ) -> float:
        """Begins a cooldown after a failure, without shortening the current one; returns its remaining seconds.

        `retry_after`: seconds, None without one. `max_backoff`: seconds without Retry-After, before jitter. `cause`:
        the failed request, '' when the failure is no request's; a request that fails again counts once.
        `first_backoff`: seconds after the first failure.
        """
        cause = cause or f"#{next(self._anonymous_causes)}"
        end = self._ends.pop(cause, 0.0)
        backoff = compute_backoff(first_backoff, min(max_backoff, self._limit), len(self._ends.keys() - {""}))
        seconds = max(BACKOFF_SECONDS, retry_after) if retry_after is not None else backoff * random.uniform(0.75, 1.25)
        self._add(cause, max(end, time.monotonic() + min(self._limit, seconds)))
        return self.remaining()

    def extend(self, seconds: float) -> None:
        """Makes the cooldown last for so many seconds at least, whoever is to blame: its end is known."""
        if seconds:
            seconds = min(MAX_KNOWN_REST_SECONDS, seconds)
            self._add("", max(self._ends.get("", 0.0), time.monotonic() + seconds))

    def _add(self, cause: str, end: float) -> None:
        self._ends[cause] = end
        self._is_unreported = True
        if len(self._ends) > MAX_CAUSES:
            del self._ends[min(self._ends, key=self._ends.__getitem__)]

    def take_back(self, cause: str) -> None:
        """Takes back what this request has caused, and only that: the cooldown lasts as long as others demand."""
        self._ends.pop(cause, None)

    def resume(self, seconds: float) -> None:
        """Continues a cooldown that another process began, and has bounded."""
        self._add("", time.monotonic() + min(MAX_KNOWN_REST_SECONDS, seconds))

    def remaining(self) -> float:
        """Seconds until the cooldown ends; 0 when there is none."""
        return max(0.0, max(self._ends.values()) - time.monotonic()) if self._ends else 0.0

    def take_ended(self) -> bool:
        """Whether a cooldown has ended since the last call."""
        has_ended = self._is_unreported and not self.remaining()
        if has_ended:
            self._is_unreported = False
        return has_ended

    def end(self) -> None:
        """Ends the cooldown now, because an operator has enabled the credential."""
        self._ends.clear()

    def reset_failures(self) -> None:
        """Resets the backoff after a success. A cooldown goes on, e.g. that of a rate limit met in another slot."""
        if self._ends:
            now = time.monotonic()
            running = max(self._ends.values())
            self._ends = {"": running} if running > now else {}
