"""Whether a pool can serve requests now."""

from redis import Redis

from shared import keys
from shared.credentials.records import USABLE_STATES
from shared.errors import ApiError
from web.single_flight_cache import SingleFlightCache


class Availability:
    """Reads a pool's credential states and circuit breaker, from Redis at most once a second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._usable_cache: SingleFlightCache[str, bool] = SingleFlightCache(self._load_usable)
        self._down_cache: SingleFlightCache[str, bool] = SingleFlightCache(
            lambda pool: bool(redis.exists(keys.breaker(pool)))
        )

    def _load_usable(self, pool: str) -> bool:
        states = {state.decode() for state in self._redis.hvals(keys.credentials(pool))}
        return bool(states & set(USABLE_STATES))

    def is_usable(self, pool: str) -> bool:
        return self._usable_cache.get(pool)

    def check(self, pool: str) -> None:
        """Raises ApiError 503 when every credential of the pool is dead or disabled, or there is none."""
        if not self.is_usable(pool):
            message = "no credential of the farm can serve this request now"
            raise ApiError(503, "no_credentials", message, "server_error", headers={"retry-after": "30"})

    def is_down(self, pool: str) -> bool:
        return self._down_cache.get(pool)
