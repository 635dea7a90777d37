"""Ends queued requests whose pool has begun to rest for longer than they may wait."""

import gevent
from redis.exceptions import RedisError

from shared.credentials.pool_rest import PoolRest
from web.request.capacity.availability import Availability
from web.request.pending import PendingRequest

#: Seconds between two looks. A pool must rest at both: a request at fault may have paused its credentials for a moment.
CHECK_INTERVAL_SECONDS = 2.0


class RestMonitor:
    """Looks at the pools that requests of this front are queued for."""

    def __init__(self, availability: Availability, queued: dict[str, PendingRequest]) -> None:
        """`queued`: request id -> request that no worker has taken yet."""
        self._availability = availability
        self._queued = queued
        #: Pool and model.
        self._resting: set[tuple[str, str]] = set()

    def run(self) -> None:
        while True:
            gevent.sleep(CHECK_INTERVAL_SECONDS)
            self.check()

    def check(self) -> None:
        try:
            wanted = {(pending.request.pool, pending.model) for pending in self._queued.values()}
            rests = {each: rest for each in wanted if (rest := self._availability.find_rest(*each))}
        except RedisError:
            return
        self._end_hopeless({each: rest for each, rest in rests.items() if each in self._resting})
        self._resting = set(rests)

    def _end_hopeless(self, rests: dict[tuple[str, str], PoolRest]) -> None:
        for pending in list(self._queued.values()) if rests else ():
            rest = rests.get((pending.request.pool, pending.model))
            if rest and rest.outlasts(pending.gives_up_at):
                pending.give_up(rest)
