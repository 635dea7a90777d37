"""How many interactive requests are in flight in each pool, and how many were at most lately.

Batches leave so many accounts free (`web/batches/headroom.py`).
"""

import time
from dataclasses import dataclass

#: Seconds of a period. The peak is that of the present period and of the one before.
PERIOD_SECONDS = 5.0
#: Pools beyond which those without requests are forgotten: each private caller has a pool of its own.
MAX_IDLE_POOLS = 1000


@dataclass
class PoolLoad:
    """Requests of one pool."""

    current: int = 0
    _peak: int = 0
    _earlier_peak: int = 0
    _period: int = 0

    def add(self, count: int, now: float) -> None:
        """Adds requests, or removes some; `now` is in seconds of any clock that does not go back."""
        self._find_period(now)
        self.current += count
        self._peak = max(self._peak, self.current)

    def find_peak(self, now: float) -> int:
        self._find_period(now)
        return max(self._peak, self._earlier_peak)

    def _find_period(self, now: float) -> None:
        period = int(now // PERIOD_SECONDS)
        if period > self._period:
            self._earlier_peak = self._peak if period == self._period + 1 else self.current
            self._period, self._peak = period, self.current


class InteractiveLoad:
    """The interactive requests of one front."""

    def __init__(self) -> None:
        self._pools: dict[str, PoolLoad] = {}

    def begin(self, pool: str) -> None:
        if pool not in self._pools:
            if len(self._pools) >= MAX_IDLE_POOLS:
                self._pools = {name: load for name, load in self._pools.items() if load.current}
            self._pools[pool] = PoolLoad()
        self._pools[pool].add(1, time.monotonic())

    def end(self, pool: str) -> None:
        self._pools[pool].add(-1, time.monotonic())

    def read(self) -> dict[str, tuple[int, int]]:
        """Pool -> requests in flight, and the most in the last five to ten seconds; without pools that had none."""
        loads = {name: self.find(name) for name in self._pools}
        return {name: load for name, load in loads.items() if load[1]}

    def find(self, pool: str) -> tuple[int, int]:
        """As `read`, of one pool."""
        load = self._pools.get(pool)
        return (load.current, load.find_peak(time.monotonic())) if load else (0, 0)
