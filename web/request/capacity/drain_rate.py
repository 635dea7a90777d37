"""Measures how fast each pool's queue drains, for `retry-after` and the estimated wait."""

import math
import time
from collections.abc import Sequence

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.credentials.pool_rest import PoolRest
from shared.protocol.relay_queue import queue_keys
from web.single_flight_cache import SingleFlightCache

#: Seconds between two samples of the number of jobs served.
SAMPLE_INTERVAL_SECONDS = 2.0
MIN_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS = 1, 60


class DrainRate:
    """The measured drain rate of each pool's queue."""

    def __init__(self, redis: Redis, pools: Sequence[str]) -> None:
        self._redis = redis
        self._pools = pools
        self._last_samples: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}
        #: Pool -> when the latest refused request was told to come back, by the monotonic clock.
        self._retries: dict[str, float] = {}
        self._waiting_cache: SingleFlightCache[str, int] = SingleFlightCache(self._count_waiting)

    def _count_waiting(self, pool: str) -> int:
        return sum(int(self._redis.llen(queue)) for queue in queue_keys(pool))

    def count_waiting(self, pool: str) -> int:
        """Requests in the pool's queue, counted at most once a second."""
        return self._waiting_cache.get(pool)

    def expected_wait(self, pool: str) -> float:
        """Seconds that a request enqueued now would wait, 0 if unknown."""
        rate = self._rates.get(pool, 0.0)
        return self.count_waiting(pool) / rate if rate else 0.0

    def run(self) -> None:
        while True:
            try:
                self._sample()
            except RedisError:
                self._last_samples.clear()
            gevent.sleep(SAMPLE_INTERVAL_SECONDS)

    def _sample(self) -> None:
        now = time.monotonic()
        counts = self._redis.mget([keys.served_jobs(pool) for pool in self._pools])
        for pool, count in zip(self._pools, counts, strict=True):
            previous = self._last_samples.get(pool)
            self._last_samples[pool] = (now, int(count or 0))
            if previous:
                self._rates[pool] = max(0.0, (int(count or 0) - previous[1]) / (now - previous[0]))

    def rate(self, pool: str) -> float:
        """Requests served per second, 0 if unknown."""
        return round(self._rates.get(pool, 0.0), 3)

    def eta_ms(self, pool: str, ahead: int) -> int:
        """Milliseconds until about `ahead` requests are served, 0 if unknown."""
        rate = self._rates.get(pool, 0.0)
        return round(1000 * ahead / rate) if rate else 0

    def retry_after(self, pool: str, waiting: int, rest: PoolRest | None = None) -> int:
        """Whole seconds until about `waiting` requests are served, for a request that is refused now.

        Within 1 to 60, unless the pool rests: then nothing is served before the end of its `rest`, however far that is.
        Further ones are told to come back one after the other, at the rate at which requests are served, or all would
        come back together. More than that are spread over half a minute, again and again.
        """
        now = time.monotonic()
        if rest:
            seconds, interval = max(0.0, rest.find_turn(waiting) - clock.now()), rest.interval
            latest = seconds + MAX_RETRY_AFTER_SECONDS / 2
        else:
            seconds, interval = self._expect(pool, waiting)
            latest = MAX_RETRY_AFTER_SECONDS
        if pool in self._pools:
            at = max(now + seconds, self._retries.get(pool, 0.0) + interval)
            if at > now + latest:
                at = now + (seconds if rest else min(seconds, MAX_RETRY_AFTER_SECONDS / 2))
            self._retries[pool] = at
            seconds = at - now
        return max(MIN_RETRY_AFTER_SECONDS, math.ceil(seconds) if rest else round(seconds))

    def _expect(self, pool: str, waiting: int) -> tuple[float, float]:
        """Seconds until `waiting` requests of a working pool are served, within 1 to 60, and between two of them."""
        rate = self._rates.get(pool, 0.0)
        if not rate:
            return float(MAX_RETRY_AFTER_SECONDS if waiting else MIN_RETRY_AFTER_SECONDS), 1.0
        return max(MIN_RETRY_AFTER_SECONDS, min(MAX_RETRY_AFTER_SECONDS, waiting / rate)), 1 / rate
