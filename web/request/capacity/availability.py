"""Whether a pool can serve requests now, and if not, when."""

from redis import Redis

from shared import keys
from shared.credentials.pool_rest import PoolRest, build_reader
from shared.credentials.records import USABLE_STATES
from shared.errors import ApiError
from web.single_flight_cache import SingleFlightCache


class Availability:
    """Reads a pool's credential states and circuit breaker, from Redis at most once a second.

    The ends of cooldowns are read only while no credential is active.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._states_cache: SingleFlightCache[str, frozenset[str]] = SingleFlightCache(self._load_states)
        self._rest_cache: SingleFlightCache[str, PoolRest | None] = SingleFlightCache(build_reader(redis))
        self._down_cache: SingleFlightCache[str, bool] = SingleFlightCache(
            lambda pool: bool(redis.exists(keys.breaker(pool)))
        )

    def _load_states(self, pool: str) -> frozenset[str]:
        return frozenset(state.decode() for state in set(self._redis.hvals(keys.credentials(pool))))

    def is_usable(self, pool: str) -> bool:
        return not self._states_cache.get(pool).isdisjoint(USABLE_STATES)

    def check(self, pool: str) -> None:
        """Raises ApiError 503 when every credential of the pool is dead or disabled, or there is none."""
        if not self.is_usable(pool):
            message = "no credential of the farm can serve this request now"
            raise ApiError(503, "no_credentials", message, "server_error", headers={"retry-after": "30"})

    def find_rest(self, pool: str) -> PoolRest | None:
        """When the pool's credentials come back; None while one is in service, or there is none."""
        states = self._states_cache.get(pool)
        if "active" in states or "cooling" not in states:
            return None
        return self._rest_cache.get(pool)

    def is_down(self, pool: str) -> bool:
        return self._down_cache.get(pool)
