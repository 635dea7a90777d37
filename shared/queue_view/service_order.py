"""In which order the waiting requests will be served, and when: a replay of fair.lua on a snapshot. No I/O.

It assumes that nothing more arrives, that no attempt fails, and that each request takes the latest average.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.queue_view.snapshot import KeyLine, QueueSnapshot, Started

#: Share of an average request that one is assumed to need still which has taken longer than that already.
OVERDUE_SHARE = 0.25
#: Average cost that fair.lua charges while none was measured, in seconds.
DEFAULT_COST_SECONDS = 1.0


class Turn(NamedTuple):
    """When a waiting request will be started."""

    request: str
    key: str
    band: str
    #: Seconds from now; None when that can't be told: no worker serves, or no request was measured yet.
    eta: float | None
    is_retry: bool = False


@dataclass(frozen=True)
class Servers:
    """What serves a pool's queue, beside the workers that run a request."""

    #: Workers that wait for a request.
    idle: int = 0
    #: Seconds from now at which further workers begin to serve, as their credentials' cooldowns end.
    resting: Sequence[float] = ()
    #: Whether requests are begun at all: not while the circuit breaker is open or the pool paused.
    are_serving: bool = True
    #: Seconds after which a batch request is due, and one in how many turns it gets then (FARM_BATCH_AGE, _TURNS).
    batch_age: float = 30.0
    batch_turns: int = 10


class Line:
    """One key's waiting requests in one band, as they are served."""

    def __init__(self, line: KeyLine) -> None:
        self.key = line.key
        self.tag, self.end, self.weight = line.tag, line.end, line.weight
        self.requests = deque(line.requests)

    def correct(self, seconds: float) -> None:
        """Adds seconds of a worker's time to what the key has been charged (`correct_charge` of fair.lua)."""
        self.tag += seconds / self.weight
        self.end += seconds / self.weight

    def take(self, cost: float) -> str:
        """Takes the next request and charges the average cost for it (`dequeue_and_charge`)."""
        self.tag = self.end = max(self.tag, self.end) + cost / self.weight
        return self.requests.popleft()


class Band:
    """The waiting requests of one band."""

    def __init__(self, lines: Sequence[KeyLine], retries: Sequence[str]) -> None:
        self.lines = {line.key: Line(line) for line in lines if line.requests}
        self.retries = deque(retries)
        self._heap = [(line.tag, line.key) for line in self.lines.values()]
        heapq.heapify(self._heap)

    def find_next(self) -> Line | None:
        """The key with the smallest tag; of equal ones the first by name, as in a sorted set of Redis."""
        while self._heap:
            tag, key = self._heap[0]
            line = self.lines[key]
            if line.requests and line.tag == tag:
                return line
            heapq.heappop(self._heap)
            if line.requests:
                heapq.heappush(self._heap, (line.tag, key))
        return None

    def correct(self, key: str, seconds: float) -> None:
        line = self.lines.get(key)
        if line and seconds:
            line.correct(seconds)
            heapq.heappush(self._heap, (line.tag, key))

    def take(self, line: Line, cost: float) -> str:
        request = line.take(cost)
        heapq.heappush(self._heap, (line.tag, line.key))
        return request


class ServiceOrder:
    """Replays the queue of a snapshot."""

    def __init__(self, snapshot: QueueSnapshot, servers: Servers, admitted_at: dict[str, float], now: float) -> None:
        """`admitted_at`: when the waiting batch requests were admitted, in seconds since the epoch, as is `now`."""
        self._servers = servers
        self._admitted_at = admitted_at
        self._now = now
        self._cost = snapshot.cost if snapshot.cost is not None else DEFAULT_COST_SECONDS
        self._turns = snapshot.turns
        self._bands = {band: Band(lines, snapshot.retries[band]) for band, lines in snapshot.lines.items()}
        #: (seconds from now at which a worker is free, its number, what it runs until then, and the seconds by which
        #: that request's charge will be corrected).
        self._free_at: list[tuple[float, int, Started | None, float]] = []
        self._can_tell = servers.are_serving and snapshot.cost is not None
        for number, started in enumerate(snapshot.running):
            self._free_at.append(self._expect_end(started, number))
        for number, seconds in enumerate((*(0.0 for _ in range(servers.idle)), *servers.resting)):
            self._free_at.append((seconds, -number - 1, None, 0.0))
        heapq.heapify(self._free_at)

    def _expect_end(self, started: Started, number: int) -> tuple[float, int, Started, float]:
        """When a running request will be over: it takes the average time, or a little more if it is overdue."""
        elapsed = max(0.0, self._now - started.started_at)
        is_overdue = elapsed > (1 - OVERDUE_SHARE) * self._cost
        rest = OVERDUE_SHARE * self._cost if is_overdue else self._cost - elapsed
        worked = elapsed + rest if is_overdue else self._cost
        return rest, number, started, 0.0 if started.charged is None else worked - started.charged

    def list_turns(self, most: int) -> list[Turn]:
        """The first `most` waiting requests in the order in which they will be started."""
        turns: list[Turn] = []
        while len(turns) < most:
            seconds = self._free_worker()
            turn = self._take_next(seconds)
            if turn is None:
                break
            turns.append(turn)
            if self._free_at:
                # It will take what it is charged, so that nothing is corrected.
                heapq.heapreplace(self._free_at, (seconds + self._cost, len(turns) + 10**6, None, 0.0))
        return turns

    def _free_worker(self) -> float:
        """Lets the next request end that does, with the correction of its charge; returns when, in seconds from now."""
        if not self._free_at:
            return 0.0
        seconds, _, started, correction = self._free_at[0]
        if started:
            self._bands[started.band].correct(started.key, correction)
        return seconds

    def _take_next(self, seconds: float) -> Turn | None:
        """As `take_next` of turn.lua and `select_next` of fair.lua."""
        interactive, batch = self._bands["interactive"], self._bands["batch"]
        eta = seconds if self._can_tell and self._free_at else None
        if interactive.retries:
            return Turn(interactive.retries.popleft(), "", "interactive", eta, is_retry=True)
        line, batch_line = interactive.find_next(), batch.find_next()
        has_batch = bool(batch.retries or batch_line)
        if line and not (has_batch and self._is_batch_due(batch, batch_line, seconds)):
            self._turns += has_batch
            return Turn(interactive.take(line, self._cost), line.key, "interactive", eta)
        self._turns = 0
        if batch.retries:
            return Turn(batch.retries.popleft(), "", "batch", eta, is_retry=True)
        return Turn(batch.take(batch_line, self._cost), batch_line.key, "batch", eta) if batch_line else None

    def _is_batch_due(self, batch: Band, line: Line | None, seconds: float) -> bool:
        if self._turns + 1 < self._servers.batch_turns:
            return False
        request = batch.retries[0] if batch.retries else line.requests[0] if line else ""
        return self._now + seconds - self._admitted_at.get(request, 0.0) >= self._servers.batch_age
