"""How many batches may await Redis's reply at a time: as many as a process can send in one round trip."""

from math import inf

#: Seconds between two batches, on average, when the limit is all that holds them back: fewer than a process needs to
#: begin a job, so that at any distance it is the process that bounds the rate, and not the limit (Little's law).
SPACING_SECONDS = 0.0005
#: The limit up to which Redis counts as near: its reply is awaited sooner than anything else can be of use.
MAX_NEARBY = 2
#: Seconds for which a round trip time counts. The least one is the way to Redis and back; the rest is waiting.
WINDOW_SECONDS = 2.0


class InFlightLimit:
    """The limit by the least round trip time lately, and 1 for a Redis nearby. No I/O."""

    def __init__(self, highest: float = inf) -> None:
        self.value = 1
        #: Whether a round trip takes so long that batches must not wait for each other's replies.
        self.is_distant = False
        self._highest = highest
        self.forget()

    def forget(self) -> None:
        """A new connection may lead elsewhere: its first reply tells how far, and the limit stays until then."""
        self._window_ends_at = 0.0
        self._least_before = self._least = inf

    def record(self, round_trip: float, now: float) -> None:
        """Both in seconds, `now` by the monotonic clock."""
        if now >= self._window_ends_at:
            self._window_ends_at = now + WINDOW_SECONDS
            self._least_before, self._least = self._least, inf
        self._least = min(self._least, round_trip)
        least = min(self._least, self._least_before)
        self.value = max(1, round(min(self._highest, least / SPACING_SECONDS)))
        self.is_distant = self.value > MAX_NEARBY
