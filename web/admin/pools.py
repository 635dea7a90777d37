"""Admin API: configuration and live status of the pools."""

from shared import keys
from shared.errors import ApiError
from shared.files.store_health import read_health
from shared.live_processes import find_oldest_heartbeat
from shared.observability.durability import read_durability
from shared.observability.pool_status import read_pool_statuses
from shared.protocol.pool_pause import decode_pause, pause_pool, resume_pool
from shared.settings.schema import PoolSettings, describe
from web.admin.api import router
from web.admin.audit_log import name_actor, record_change
from web.admin.schemas.fields import Empty
from web.admin.schemas.pools import Live, LiveDurability, LiveFileStore, LivePool, Pool, PoolList, PoolPause
from web.services import services


@router.route("GET", "/pools", response=PoolList)
def list_pools() -> PoolList:
    """List the configuration of all pools."""
    return PoolList(data=[to_schema(pool) for pool in services().pool_selector])


@router.route("GET", "/pools/<name>", response=Pool)
def get_pool(name: str) -> Pool:
    """Get the configuration of a pool."""
    return to_schema(find_pool(name))


def find_pool(name: str) -> PoolSettings:
    """Raises ApiError 404."""
    for pool in services().pool_selector:
        if pool.name == name:
            return pool
    raise ApiError(404, "not_found", f"no pool {name[:100]!r}")


@router.route("POST", "/pools/<name>/pause", body=Empty, response=PoolPause)
def pause(name: str, body: Empty) -> PoolPause:
    """Pause a pool: running requests end, new ones wait in its queue, until it is resumed.

    At once in all processes, and over restarts. Waiting requests still end after FARM_QUEUE_TIMEOUT; a request that
    another pool may serve goes there. Pausing a paused pool changes nothing.
    """
    pool = find_pool(name).name
    if pause_pool(services().redis, pool, name_actor()):
        record_change("pool.pause", pool)
    return read_pause(pool)


@router.route("POST", "/pools/<name>/resume", body=Empty, response=PoolPause)
def resume(name: str, body: Empty) -> PoolPause:
    """Resume a paused pool: its workers go on within a second."""
    pool = find_pool(name).name
    if resume_pool(services().redis, pool):
        record_change("pool.resume", pool)
    return read_pause(pool)


def read_pause(pool: str) -> PoolPause:
    found = decode_pause(services().redis.get(keys.paused(pool)))
    return PoolPause(pool=pool, paused_since=found.since, paused_by=found.by)


def to_schema(pool: PoolSettings) -> Pool:
    return Pool(name=pool.name, settings=describe(pool))


@router.route("GET", "/live", response=Live)
def live() -> Live:
    """Get the live status: workers, queues, utilisation, drain rate."""
    web_services = services()
    statuses = read_pool_statuses(web_services.redis, [pool.name for pool in web_services.pool_selector])
    pools = [LivePool(**status.to_dict(), drain_rate=web_services.drain_rate.rate(status.name)) for status in statuses]
    alive_since = find_oldest_heartbeat()
    return Live(
        pools=pools,
        durability=LiveDurability(**read_durability(web_services.redis).to_dict()),
        file_store=LiveFileStore(**read_health(web_services.redis).to_dict()),
        worker_processes=web_services.redis.zcount(keys.PROCESSES, alive_since, "+inf"),
        web_processes=web_services.redis.zcount(keys.FRONTS, alive_since, "+inf"),
    )
