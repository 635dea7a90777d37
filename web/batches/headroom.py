"""How many lines of batches may be in flight in each pool: what interactive requests leave.

Without those there are twice as many lines as accounts, so that no account waits for its next line. With them, as many
accounts stay free as interactive requests were in flight lately, so that the next one need not wait for a line's end.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from shared import clock, keys
from shared.parsing import parse_json_object
from web.request.capacity.interactive_load import InteractiveLoad

#: Lines per account while there are no interactive requests, and at least: what batch requests get that are due.
LINES_PER_ACCOUNT, MIN_SHARE = 2, 0.1
#: Seconds after which what another front has told about itself is out of date, and for which Redis keeps it.
MAX_AGE_SECONDS, TTL_SECONDS = 10.0, 60


def count_lines(accounts: int, current: int, peak: int) -> int:
    """Lines of all batches that may be in flight in a pool.

    `current` and `peak`: interactive requests in flight now, and at most lately. After a burst, half of the accounts
    stay free at most: the next one may not come.
    """
    if not peak:
        return LINES_PER_ACCOUNT * accounts
    least = max(1, round(MIN_SHARE * accounts))
    return max(least, accounts - max(current, min(peak, accounts // 2)))


@dataclass(frozen=True)
class FrontLoad:
    """What a front tells the others while there are batches."""

    #: Pool -> batches of the front that have lines to begin, and may use it.
    batches: Mapping[str, int]
    #: Pool -> interactive requests in flight, and at most lately.
    interactive: Mapping[str, tuple[int, int]]

    def encode(self) -> str:
        return json.dumps({"at": clock.now(), "pools": self.batches, "interactive": self.interactive})


def decode_front_load(data: bytes) -> FrontLoad | None:
    """None if it is out of date."""
    record = parse_json_object(data)
    if record.get("at", 0) < clock.now() - MAX_AGE_SECONDS:
        return None
    interactive = {pool: (load[0], load[1]) for pool, load in record["interactive"].items()}
    return FrontLoad(record.get("pools", {}), interactive)


class Headroom:
    """What the batches of this front may use; knows the other fronts since the last exchange."""

    def __init__(self, redis: Redis, front_id: str, interactive: InteractiveLoad) -> None:
        self._redis = redis
        self._front_id = front_id
        self._interactive = interactive
        self._others: list[FrontLoad] = []

    def exchange(self, batches: Mapping[str, int]) -> None:
        """Tells the other fronts of this one's requests, and of its batches by pool that have lines to begin.

        Raises RedisError.
        """
        load = FrontLoad(batches, self._interactive.read())
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(keys.FRONT_LOADS, self._front_id, load.encode())
            pipe.expire(keys.FRONT_LOADS, TTL_SECONDS)
            pipe.hgetall(keys.FRONT_LOADS)
            found = pipe.execute()[-1]
        loads = [decode_front_load(data) for front, data in found.items() if front.decode() != self._front_id]
        self._others = [load for load in loads if load]

    def count_batches(self, pool: str, own: int) -> int:
        """Batches of all fronts that have lines to begin, and may use the pool; `own` are this front's."""
        return own + sum(load.batches.get(pool, 0) for load in self._others)

    def find_interactive(self, pool: str) -> tuple[int, int]:
        """Interactive requests in flight in the pool, and at most lately."""
        loads = [self._interactive.find(pool), *(load.interactive.get(pool, (0, 0)) for load in self._others)]
        return sum(current for current, _ in loads), sum(peak for _, peak in loads)
