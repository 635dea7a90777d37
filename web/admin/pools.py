"""Pools in the admin API: as configured, and what runs now."""

import time

from shared import keys
from shared.errors import ApiError
from shared.observability.pool_status import read_pool_statuses
from shared.settings.schema import PoolSettings, describe
from web.admin.api import router
from web.admin.schemas import (
    Live,
    LivePool,
    Pool,
    PoolList,
)
from web.services import services


@router.route("GET", "/pools", response=PoolList)
def list_pools() -> PoolList:
    """Every pool as configured."""
    return PoolList(data=[to_schema(pool) for pool in services().pool_selector])


@router.route("GET", "/pools/<name>", response=Pool)
def get_pool(name: str) -> Pool:
    """One pool as configured."""
    for pool in services().pool_selector:
        if pool.name == name:
            return to_schema(pool)
    raise ApiError(404, "not_found", f"no pool {name[:100]!r}")


def to_schema(pool: PoolSettings) -> Pool:
    """A pool as the API gives it."""
    return Pool(name=pool.name, settings=describe(pool))


@router.route("GET", "/live", response=Live)
def live() -> Live:
    """What runs now: workers, queues, utilisation, drain rate."""
    farm = services()
    states = read_pool_statuses(farm.redis, [pool.name for pool in farm.pool_selector])
    pools = [LivePool(**state.to_dict(), drain_rate=farm.drain_rate.rate(state.name)) for state in states]
    recent = time.time() - 10
    return Live(
        pools=pools,
        worker_processes=farm.redis.zcount(keys.PROCESSES, recent, "+inf"),
        web_processes=farm.redis.zcount(keys.FRONTS, recent, "+inf"),
    )
