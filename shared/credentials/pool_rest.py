"""The rest of a pool whose usable credentials all cool down: when it ends, and when the requests that wait start."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.redis_connection.client import register_script

#: Our code for an API key that the upstream answers with 401, which is also the reason of its cooldown.
API_KEY_REFUSED = "api_key_refused"
#: Reason of the cooldown of an API key that the upstream refuses again and again, while it accepts none of the pool's.
API_KEYS_REFUSED = "api_keys_refused"
#: Seconds per request while none has been served yet, as shared/protocol/fair.lua has it; and at least.
DEFAULT_COST_SECONDS, MIN_COST_SECONDS = 1.0, 0.001


@dataclass(frozen=True)
class PoolRest:
    """When the credentials of a resting pool come back. Times are seconds since the epoch."""

    #: The end of each cooldown, earliest first; never empty.
    ends: tuple[float, ...]
    #: Seconds that a request takes a worker on average.
    cost: float = DEFAULT_COST_SECONDS
    #: Whether the upstream refuses the API key of each: then the first one that comes back is a try.
    is_refused: bool = False

    def outlasts(self, time: float) -> bool:
        """Whether a request that may wait until then is not worth queueing."""
        return self.is_refused or self.ends_at > time

    @property
    def ends_at(self) -> float:
        """When the first credential comes back."""
        return self.ends[0]

    @property
    def interval(self) -> float:
        """Seconds between two requests that are served once all credentials are back."""
        return self.cost / len(self.ends)

    def find_turn(self, ahead: int) -> float:
        """The earliest time at which a request with so many others ahead of it can start.

        Each credential serves one request after the other from its end on. That it may soon rest again isn't known.
        """
        remaining = ahead * self.cost
        for serving, (begins_at, next_at) in enumerate(pairwise((*self.ends, math.inf)), 1):
            turn = begins_at + remaining / serving
            if turn <= next_at:
                return turn
            remaining -= serving * (next_at - begins_at)
        raise AssertionError("the last interval has no end")


def build_reader(redis: Redis) -> Callable[[tuple[str, str]], PoolRest | None]:
    """A function that reads a pool's rest; None while a credential is in service, or none is usable.

    It takes the pool and the upstream's name of a model, '' for none: credentials that rest for a model only are in
    service for others.
    """
    script = register_script(redis, Path(__file__).with_name("read_rest.lua"))

    def read(pool_and_model: tuple[str, str]) -> PoolRest | None:
        pool, model = pool_and_model
        rest: Any = script(
            keys=[keys.credentials(pool), keys.fair_queue(pool), keys.account_limits(pool)],
            args=[keys.credential(""), clock.now(), API_KEYS_REFUSED, keys.resting_models(""), model],
        )
        if not rest:
            return None
        cost, is_refused, *ends = rest
        average = float(cost) if cost else DEFAULT_COST_SECONDS
        return PoolRest(tuple(sorted(map(float, ends))), max(average, MIN_COST_SECONDS), bool(is_refused))

    return read
