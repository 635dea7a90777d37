"""Which pool serves a model, and whether the farm can take a request now; it enqueues nothing itself."""

import time
from collections.abc import Iterator, Sequence

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.credentials import USABLE
from shared.errors import ApiError
from shared.key_fields import ApiKey
from shared.settings import PoolSettings
from web.believed import Believed

#: Seconds between two readings of how many jobs were served.
SAMPLE_EVERY = 5.0
SHORTEST_WAIT, LONGEST_WAIT = 1, 60


class Pools:
    """The pools by the models they serve."""

    def __init__(self, pools: Sequence[PoolSettings]) -> None:
        self._pools = pools

    def for_model(self, model: str, key: ApiKey) -> PoolSettings:
        """The first pool that serves the model and is open to the key. Raises ApiError 404."""
        for pool in self.of(key) if key.allows_model(model) else ():
            if not pool.models or model in pool.models or model in pool.model_map:
                return pool
        raise no_model(model)

    def of(self, key: ApiKey) -> list[PoolSettings]:
        """The pools that are open to the key."""
        return [pool for pool in self._pools if key.allows_pool(pool.name)]

    def __iter__(self) -> Iterator[PoolSettings]:
        return iter(self._pools)


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

    def check(self, pool: str) -> None:
        """Raises ApiError 503 when every credential of the pool is dead or disabled, or there is none."""
        if not self._usable.get(pool):
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
