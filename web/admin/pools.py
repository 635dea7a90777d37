"""Pools in the admin API: as configured, and what runs now."""

import time

from shared import keys
from shared.errors import ApiError
from shared.observability.pool_status import read_pools
from shared.settings.schema import PoolSettings, described
from web.admin.api import contract
from web.admin.schemas import (
    Live,
    LivePool,
    Pool,
    PoolList,
)
from web.services import parts


@contract.route("GET", "/pools", answer=PoolList)
def list_pools() -> PoolList:
    """Every pool as configured."""
    return PoolList(data=[shown_pool(pool) for pool in parts().pools])


@contract.route("GET", "/pools/<name>", answer=Pool)
def get_pool(name: str) -> Pool:
    """One pool as configured."""
    for pool in parts().pools:
        if pool.name == name:
            return shown_pool(pool)
    raise ApiError(404, "not_found", f"no pool {name[:100]!r}")


def shown_pool(pool: PoolSettings) -> Pool:
    """A pool as the API gives it."""
    return Pool(name=pool.name, settings=described(pool))


@contract.route("GET", "/live", answer=Live)
def live() -> Live:
    """What runs now: workers, queues, utilisation, drain rate."""
    farm = parts()
    states = read_pools(farm.redis, [pool.name for pool in farm.pools])
    pools = [LivePool(**state.as_dict(), drain_rate=farm.drain_rate.rate(state.name)) for state in states]
    recent = time.time() - 10
    return Live(
        pools=pools,
        worker_processes=farm.redis.zcount(keys.PROCESSES, recent, "+inf"),
        web_processes=farm.redis.zcount(keys.FRONTS, recent, "+inf"),
    )
