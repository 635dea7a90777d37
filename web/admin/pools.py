"""Admin API: configuration and live status of the pools."""

from shared import clock, keys
from shared.errors import ApiError
from shared.observability.durability import read_durability
from shared.observability.pool_status import read_pool_statuses
from shared.settings.schema import PoolSettings, describe
from web.admin.api import router
from web.admin.schemas import Live, LiveDurability, LivePool, Pool, PoolList
from web.services import services

#: Seconds since the last heartbeat within which a process counts as alive.
HEARTBEAT_TIMEOUT_SECONDS = 10


@router.route("GET", "/pools", response=PoolList)
def list_pools() -> PoolList:
    """List the configuration of all pools."""
    return PoolList(data=[to_schema(pool) for pool in services().pool_selector])


@router.route("GET", "/pools/<name>", response=Pool)
def get_pool(name: str) -> Pool:
    """Get the configuration of a pool."""
    for pool in services().pool_selector:
        if pool.name == name:
            return to_schema(pool)
    raise ApiError(404, "not_found", f"no pool {name[:100]!r}")


def to_schema(pool: PoolSettings) -> Pool:
    return Pool(name=pool.name, settings=describe(pool))


@router.route("GET", "/live", response=Live)
def live() -> Live:
    """Get the live status: workers, queues, utilisation, drain rate."""
    web_services = services()
    statuses = read_pool_statuses(web_services.redis, [pool.name for pool in web_services.pool_selector])
    pools = [LivePool(**status.to_dict(), drain_rate=web_services.drain_rate.rate(status.name)) for status in statuses]
    alive_since = clock.now() - HEARTBEAT_TIMEOUT_SECONDS
    return Live(
        pools=pools,
        durability=LiveDurability(**read_durability(web_services.redis).to_dict()),
        worker_processes=web_services.redis.zcount(keys.PROCESSES, alive_since, "+inf"),
        web_processes=web_services.redis.zcount(keys.FRONTS, alive_since, "+inf"),
    )
