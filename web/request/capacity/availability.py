"""Whether a pool can serve requests now, and if not, when."""

from dataclasses import dataclass

from redis import Redis

from shared import keys, names
from shared.credentials.pool_rest import PoolRest, build_reader
from shared.credentials.records import USABLE_STATES
from shared.errors import ApiError
from web.single_flight_cache import SingleFlightCache

#: Stands for a model for which no credential rests.
ANY_OTHER_MODEL = "*"


@dataclass(frozen=True)
class PoolStates:
    """The states of a pool's credentials, and the models for which some of them rest."""

    states: frozenset[str]
    limited_models: frozenset[str]


class Availability:
    """Reads a pool's credential states, circuit breaker and pause, from Redis at most once a second.

    The ends of cooldowns are read only while no credential is active, or some rest for the model asked for.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._states_cache: SingleFlightCache[str, PoolStates] = SingleFlightCache(self._load_states)
        self._rest_cache: SingleFlightCache[tuple[str, str], PoolRest | None] = SingleFlightCache(build_reader(redis))
        self._down_cache: SingleFlightCache[str, bool] = SingleFlightCache(
            lambda pool: bool(redis.exists(keys.breaker(pool)))
        )
        self._paused_cache: SingleFlightCache[str, bool] = SingleFlightCache(
            lambda pool: bool(redis.exists(keys.paused(pool)))
        )

    def _load_states(self, pool: str) -> PoolStates:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hvals(keys.credentials(pool))
            pipe.zrange(keys.resting_by_pool(pool), 0, -1)
            states, models = pipe.execute()
        return PoolStates(frozenset(map(bytes.decode, states)), frozenset(map(bytes.decode, models)))

    def is_usable(self, pool: str) -> bool:
        return not self._states_cache.get(pool).states.isdisjoint(USABLE_STATES)

    def check(self, pool: str) -> None:
        """Raises ApiError 503 when every credential of the pool is dead or disabled, or there is none."""
        if not self.is_usable(pool):
            message = "no credential of the farm can serve this request now"
            raise ApiError(503, "no_credentials", message, "server_error", headers={"retry-after": "30"})

    def find_rest(self, pool: str, model: str = "") -> PoolRest | None:
        """When the pool's credentials come back; None while one is in service, or there is none.

        `model`: the upstream's name of one for which they may rest, while they are in service for others.
        """
        pool_states = self._states_cache.get(pool)
        states, limited = pool_states.states, pool_states.limited_models
        model = names.limited_model(model) if limited else ""
        if model not in limited and ("active" in states or "cooling" not in states):
            return None
        return self._rest_cache.get((pool, find_representative(model, limited)))

    def is_paused(self, pool: str) -> bool:
        return self._paused_cache.get(pool)

    def is_down(self, pool: str) -> bool:
        return self._down_cache.get(pool)


def find_representative(model: str, limited: frozenset[str]) -> str:
    """The model itself if it is limited, and one name for all others; '' if none is, or no model is meant."""
    if not model or not limited:
        return ""
    return model if model in limited else ANY_OTHER_MODEL
