"""Selects the pool that serves a request."""

import random
from collections.abc import Iterator

from shared import clock, names
from shared.api_keys.api_key import ApiKey
from shared.errors import ApiError
from shared.settings.schema import PoolSettings, Settings
from web.access.private_callers import PrivateCaller
from web.request.capacity.availability import Availability
from web.request.capacity.overload import Overload


class PoolSelector:
    """The configured pools, ordered by priority."""

    def __init__(self, settings: Settings, availability: Availability, overload: Overload) -> None:
        self._settings = settings
        self._pools = sorted(settings.pools, key=lambda pool: pool.priority)
        self._total_timeouts = {pool.name: settings.with_pool_timeouts(pool).total_timeout for pool in settings.pools}
        self._availability = availability
        self._overload = overload
        self._queue_timeout = settings.queue_timeout

    def select(self, model: str, key: ApiKey) -> PoolSettings:
        """Selects a pool for the model. Raises ApiError 404 when none serves it.

        Of the pools that serve the model and are open to the key:
        1. those with a usable credential,
        2. that no operator has paused,
        3. that don't rest for longer than a request may wait,
        4. whose expected wait is not above their `overflow_wait`,
        5. of the lowest priority value,
        6. one at random by weight.
        Steps 1 to 4 are skipped when no pool passes them.
        """
        candidates = [
            pool for pool in (self.list_open_to(key) if key.allows_model(model) else ()) if can_serve(pool, model)
        ]
        if not candidates:
            raise model_not_found_error(model)
        if len(candidates) > 1:
            candidates = [pool for pool in candidates if self._availability.is_usable(pool.name)] or candidates
            candidates = [pool for pool in candidates if not self._availability.is_paused(pool.name)] or candidates
            candidates = [pool for pool in candidates if not self._rests_too_long(pool, model)] or candidates
            candidates = [pool for pool in candidates if not self._is_too_busy(pool, model)] or candidates
            candidates = [pool for pool in candidates if pool.priority == candidates[0].priority]
        return (
            candidates[0]
            if len(candidates) == 1
            else random.choices(candidates, [pool.weight for pool in candidates])[0]
        )

    def _rests_too_long(self, pool: PoolSettings, model: str) -> bool:
        rest = self._availability.find_rest(pool.name, pool.model_map.get(model, model))
        longest_wait = min(self._queue_timeout, self.total_timeout(pool.name))
        return rest is not None and rest.outlasts(clock.now() + longest_wait)

    def _is_too_busy(self, pool: PoolSettings, model: str) -> bool:
        return 0 < pool.overflow_wait < self._overload.expected_wait(pool.name, pool.model_map.get(model, model))

    def list_open_to(self, key: ApiKey) -> list[PoolSettings]:
        """Lists the pools open to the key, lowest priority value first; a private caller has only its own pool."""
        if isinstance(key, PrivateCaller):
            return [self._settings.pool(key.pool)]
        return [pool for pool in self._pools if key.allows_pool(pool.name)]

    def has_pool(self, name: str) -> bool:
        """Whether it is configured, or that of a private credential that a configured pool admits."""
        return self._settings.has_pool(name)

    def total_timeout(self, name: str) -> float:
        """Returns the pool's total timeout in seconds."""
        return self._total_timeouts[names.configured_pool(name)]

    def __iter__(self) -> Iterator[PoolSettings]:
        return iter(self._pools)


def can_serve(pool: PoolSettings, model: str) -> bool:
    return not pool.models or model in pool.models or model in pool.model_map


def model_not_found_error(model: str) -> ApiError:
    """Builds the 404 for a model that does not exist, or is not open to this caller."""
    message = f"The model `{model[:100]}` does not exist or you do not have access to it."
    return ApiError(404, "model_not_found", message, param="model")
