"""How many batches may await Redis's reply at a time: as many as the process can serve in one round trip.

That is Little's law, L = λW, with both factors measured: W is the least round trip lately, and λ the rate at which this
process could begin jobs, which the CPU time that a batch costs it limits.
"""

import time
from collections.abc import Callable
from math import inf

#: Batches that may be in flight, as a multiple of what the law gives: accounts in step ask for jobs all at once, and to
#: begin a job takes a fraction of the CPU time that it costs in all.
HEADROOM = 4
#: CPU seconds per batch until they are measured: few, so that a process that has just started does not hold jobs back.
FIRST_COST_SECONDS = 0.002
#: Batches within a window that tell what one costs; among fewer, the process's other work would count for too much.
MIN_BATCHES = 100
#: The limit up to which Redis counts as near: its reply is awaited sooner than anything else can be of use.
MAX_NEARBY = 2
#: Seconds for which a round trip time counts. The least one is the way to Redis and back; the rest is waiting.
WINDOW_SECONDS = 2.0


class InFlightLimit:
    """The limit by the least round trip time and the CPU time per batch lately, and 1 for a Redis nearby. No I/O."""

    def __init__(self, highest: float = inf, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        """`cpu_clock` returns the CPU seconds of the thread that sends the batches and does what they are for."""
        self.value = 1
        #: Whether a round trip takes so long that batches must not wait for each other's replies.
        self.is_distant = False
        self._highest = highest
        self._cpu_clock = cpu_clock
        self._cost = FIRST_COST_SECONDS
        self._batch_count, self._cpu_before = 0, cpu_clock()
        self._window_ends_at = 0.0
        self.forget()

    def forget(self) -> None:
        """A new connection may lead elsewhere: its first reply tells how far, and the limit stays until then."""
        self._least_before = self._least = inf

    def record(self, round_trip: float, now: float, *, is_piggyback: bool = False) -> None:
        """Records a batch whose replies have come. Both in seconds, `now` by the monotonic clock.

        A piggyback batch, which belongs to work that another batch has begun, tells the distance only.
        """
        self._batch_count += not is_piggyback
        if now >= self._window_ends_at:
            self._begin_window(now)
        self._least = min(self._least, round_trip)
        least = min(self._least, self._least_before)
        self.value = max(1, round(min(self._highest, HEADROOM * least / self._cost)))
        self.is_distant = self.value > MAX_NEARBY

    def _begin_window(self, now: float) -> None:
        self._least_before, self._least = self._least, inf
        cpu, was_busy = self._cpu_clock(), now < self._window_ends_at + WINDOW_SECONDS
        if was_busy and self._batch_count >= MIN_BATCHES:
            self._cost = max((cpu - self._cpu_before) / self._batch_count, 1e-6)
        self._batch_count, self._cpu_before = 0, cpu
        self._window_ends_at = now + WINDOW_SECONDS
