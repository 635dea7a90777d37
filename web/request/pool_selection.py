"""Which pool serves a model, and whether the farm can take a request now; it enqueues nothing itself."""

import random
from collections.abc import Iterator

from shared import names
from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.settings.schema import PoolSettings, Settings
from web.access.private_callers import PrivateCaller
from web.request.availability import Availability
from web.request.drain_rate import DrainRate


class PoolSelector:
    """The pools by the models they serve, and which of them takes a request."""

    def __init__(self, settings: Settings, availability: Availability, drain_rate: DrainRate) -> None:
        self._settings = settings
        self._pools = sorted(settings.pools, key=lambda pool: pool.priority)
        self._total_timeouts = {pool.name: settings.with_pool_timeouts(pool).total_timeout for pool in settings.pools}
        self._availability = availability
        self._drain_rate = drain_rate

    def select(self, model: str, key: ApiKey) -> PoolSettings:
        """The pool that takes a request for the model. Raises ApiError 404 when none serves it.

        1. Of the pools that serve it and are open to the key, 2. those with an account that can serve now, 3. whose
        expected wait is not too long, 4. of the least priority, 5. one by its weight. Where a step leaves none, it is
        left out: a request waits rather than being refused.
        """
        candidates = [
            pool for pool in (self.list_open_to(key) if key.allows_model(model) else ()) if can_serve(pool, model)
        ]
        if not candidates:
            raise model_not_found_error(model)
        if len(candidates) > 1:
            candidates = [pool for pool in candidates if self._availability.is_usable(pool.name)] or candidates
            candidates = [pool for pool in candidates if not self._is_too_busy(pool)] or candidates
            candidates = [pool for pool in candidates if pool.priority == candidates[0].priority]
        return (
            candidates[0]
            if len(candidates) == 1
            else random.choices(candidates, [pool.weight for pool in candidates])[0]
        )

    def _is_too_busy(self, pool: PoolSettings) -> bool:
        return 0 < pool.overflow_wait < self._drain_rate.expected_wait(pool.name)

    def list_open_to(self, key: ApiKey) -> list[PoolSettings]:
        """The pools that are open to the key, the least priority first; to a private caller its own account alone."""
        if isinstance(key, PrivateCaller):
            return [self._settings.pool(key.pool)]
        return [pool for pool in self._pools if key.allows_pool(pool.name)]

    def total_timeout(self, name: str) -> float:
        """Seconds for a request of the pool in all."""
        return self._total_timeouts[names.configured_pool(name)]

    def __iter__(self) -> Iterator[PoolSettings]:
        return iter(self._pools)


def can_serve(pool: PoolSettings, model: str) -> bool:
    """Whether the pool takes requests for the model."""
    return not pool.models or model in pool.models or model in pool.model_map


def model_not_found_error(model: str) -> ApiError:
    """The answer to a model that is not there, or not for this caller."""
    message = f"The model `{model[:100]}` does not exist or you do not have access to it."
    return ApiError(404, "model_not_found", message, param="model")
