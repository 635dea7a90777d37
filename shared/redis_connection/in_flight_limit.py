"""How many batches may await Redis's reply at a time: as many as keep a distant Redis busy."""

#: Seconds between two batches, on average, when the limit is all that holds them back.
SPACING_SECONDS = 0.0005
MAX_IN_FLIGHT = 64
#: Seconds for which a round trip time counts. The least one is the way to Redis and back; the rest is waiting.
WINDOW_SECONDS = 5.0


class InFlightLimit:
    """The limit by the least round trip time lately, and 1 for a Redis nearby. No I/O."""

    def __init__(self, highest: int = MAX_IN_FLIGHT) -> None:
        self.value = 1
        self._highest = highest
        self._window_ends_at = 0.0
        self._least_before = self._least = float("inf")

    def record(self, round_trip: float, now: float) -> None:
        """Both in seconds, `now` by the monotonic clock."""
        if now >= self._window_ends_at:
            self._window_ends_at = now + WINDOW_SECONDS
            self._least_before, self._least = self._least, float("inf")
        self._least = min(self._least, round_trip)
        least = min(self._least, self._least_before)
        self.value = max(1, min(self._highest, round(least / SPACING_SECONDS)))
