"""Which pool serves a model, and whether the farm can take a request now; it enqueues nothing itself."""

import random
import time
from collections.abc import Iterator, Sequence

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.credentials.records import USABLE
from shared.errors import ApiError
from shared.protocol.relay_queue import queue_keys
from shared.settings.schema import PoolSettings, Settings
from web.access.private_callers import PrivateCaller
from web.single_flight_cache import Believed

#: Seconds between two readings of how many jobs were served.
SAMPLE_EVERY = 2.0
SHORTEST_WAIT, LONGEST_WAIT = 1, 60


class Pools:
    """The pools by the models they serve, and which of them takes a request."""

    def __init__(self, settings: Settings, usable: "Usable", drain_rate: "DrainRate") -> None:
        self._settings = settings
        self._pools = sorted(settings.pools, key=lambda pool: pool.priority)
        self._patience = {pool.name: settings.of(pool).total_timeout for pool in settings.pools}
        self._usable = usable
        self._drain_rate = drain_rate

    def for_model(self, model: str, key: ApiKey) -> PoolSettings:
        """The pool that takes a request for the model. Raises ApiError 404 when none serves it.

        1. Of the pools that serve it and are open to the key, 2. those with an account that can serve now, 3. whose
        expected wait is not too long, 4. of the least priority, 5. one by its weight. Where a step leaves none, it is
        left out: a request waits rather than being refused.
        """
        found = [pool for pool in (self.of(key) if key.allows_model(model) else ()) if serves(pool, model)]
        if not found:
            raise no_model(model)
        if len(found) > 1:
            found = [pool for pool in found if self._usable.is_usable(pool.name)] or found
            found = [pool for pool in found if not self._is_too_busy(pool)] or found
            found = [pool for pool in found if pool.priority == found[0].priority]
        return random.choices(found, [pool.weight for pool in found])[0] if len(found) > 1 else found[0]

    def _is_too_busy(self, pool: PoolSettings) -> bool:
        return 0 < pool.overflow_wait < self._drain_rate.expected_wait(pool.name)

    def of(self, key: ApiKey) -> list[PoolSettings]:
        """The pools that are open to the key, the least priority first; to a private caller its own account alone."""
        if isinstance(key, PrivateCaller):
            return [self._settings.pool(key.pool)]
        return [pool for pool in self._pools if key.allows_pool(pool.name)]

    def total_timeout(self, name: str) -> float:
        """Seconds for a request of the pool in all."""
        return self._patience[keys.family(name)]

    def __iter__(self) -> Iterator[PoolSettings]:
        return iter(self._pools)


def serves(pool: PoolSettings, model: str) -> bool:
    """Whether the pool takes requests for the model."""
    return not pool.models or model in pool.models or model in pool.model_map


def no_model(model: str) -> ApiError:
    """The answer to a model that is not there, or not for this caller."""
    message = f"The model `{model[:100]}` does not exist or you do not have access to it."
    return ApiError(404, "model_not_found", message, param="model")


class Usable:
    """Whether a pool can serve; asked of Redis once a second at most."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._usable: Believed[str, bool] = Believed(self._look)
        self._down: Believed[str, bool] = Believed(lambda pool: bool(redis.exists(keys.breaker(pool))))

    def _look(self, pool: str) -> bool:
        states = {state.decode() for state in self._redis.hvals(keys.credentials(pool))}
        return bool(states & set(USABLE))

    def is_usable(self, pool: str) -> bool:
        """Whether the pool has a credential that is in service."""
        return self._usable.get(pool)

    def check(self, pool: str) -> None:
        """Raises ApiError 503 when every credential of the pool is dead or disabled, or there is none."""
        if not self.is_usable(pool):
            message = "no account of the farm can serve this request now"
            raise ApiError(503, "no_credentials", message, "server_error", headers={"retry-after": "30"})

    def is_down(self, pool: str) -> bool:
        """Whether the pool's upstream is down."""
        return self._down.get(pool)


class DrainRate:
    """How fast each pool's queue empties, measured, so that `retry-after` tells the truth."""

    def __init__(self, redis: Redis, pools: Sequence[str]) -> None:
        self._redis = redis
        self._pools = pools
        self._served: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}
        self._waiting: Believed[str, int] = Believed(self._count)

    def _count(self, pool: str) -> int:
        return sum(int(self._redis.llen(queue)) for queue in queue_keys(pool))

    def expected_wait(self, pool: str) -> float:
        """Seconds that the last of those who wait in the pool will have waited; 0 where it is not known."""
        rate = self._rates.get(pool, 0.0)
        return self._waiting.get(pool) / rate if rate else 0.0

    def run(self) -> None:
        """Runs for ever."""
        while True:
            try:
                self._sample()
            except (RedisError, OSError):
                self._served.clear()
            gevent.sleep(SAMPLE_EVERY)

    def _sample(self) -> None:
        now = time.monotonic()
        counts = self._redis.mget([keys.served(pool) for pool in self._pools])
        for pool, count in zip(self._pools, counts, strict=True):
            before = self._served.get(pool)
            self._served[pool] = (now, int(count or 0))
            if before:
                self._rates[pool] = max(0.0, (int(count or 0) - before[1]) / (now - before[0]))

    def rate(self, pool: str) -> float:
        """Requests of the pool that are served per second, 0 where it is not known yet."""
        return round(self._rates.get(pool, 0.0), 3)

    def eta_ms(self, pool: str, before: int) -> int:
        """Milliseconds until about so many requests have been served, 0 where it is not known."""
        rate = self._rates.get(pool, 0.0)
        return round(1000 * before / rate) if rate else 0

    def retry_after(self, pool: str, waiting: int) -> int:
        """Whole seconds until about so many requests have been served, within 1 to 60."""
        rate = self._rates.get(pool, 0.0)
        seconds = waiting / rate if rate else LONGEST_WAIT if waiting else SHORTEST_WAIT
        return max(SHORTEST_WAIT, min(LONGEST_WAIT, round(seconds)))


def overloaded(code: str, message: str, retry_after: int) -> ApiError:
    """429 with the time to wait: PDF translators retry that a hundred times, and a 503 not at all."""
    return ApiError(429, code, message, "rate_limit_error", headers={"retry-after": str(retry_after)})
