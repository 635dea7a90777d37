"""Admin API: what the time of accounts went into, and whether requests ever met on one."""

from shared import clock
from shared.observability.account_time.account_hours import (
    HOUR_SECONDS,
    compute_busy_share,
    list_hours,
    read_account_hours,
    read_hours_of,
)
from shared.observability.account_time.in_flight import read_peaks
from shared.observability.counters import read_counters
from shared.observability.names_by_id import find_credential_names
from shared.observability.samples import Samples
from web.admin.api import router
from web.admin.credentials import list_configured_pools, open_store
from web.admin.telemetry.queue import select_pools
from web.admin.telemetry.schemas import (
    AccountTime,
    AccountTimes,
    Capacity,
    CapacityQuery,
    CollisionMeter,
    PoolCapacity,
    PoolPeak,
)
from web.services import services

#: Seconds between the samples of which lost capacity is told.
SAMPLE_STEP_SECONDS = 60


@router.route("GET", "/capacity", response=Capacity)
def get_capacity() -> Capacity:
    """Get what the accounts' time of the last hour went into, and whether two requests ever met on one account."""
    redis, pools = services().redis, list_configured_pools()
    hour = Samples(redis).sum_up(SAMPLE_STEP_SECONDS, clock.now() - HOUR_SECONDS)
    seconds = {pool: hour.pools[pool].account_seconds for pool in pools if hour and pool in hour.pools}
    return Capacity(
        seconds=hour.seconds if hour else 0,
        data=[build_pool_capacity(pool, dict(seconds.get(pool, {}))) for pool in pools],
        collisions=read_collision_meter(pools),
    )


def build_pool_capacity(pool: str, seconds: dict[str, float]) -> PoolCapacity:
    total = sum(seconds.values())
    lost = seconds.get("idle_waiting", 0.0)
    return PoolCapacity(
        pool=pool, account_seconds=seconds, total=round(total, 3), lost=lost, lost_share=lost / total if total else None
    )


def read_collision_meter(pools: list[str]) -> CollisionMeter:
    web_services = services()
    counters, peaks = read_counters(web_services.redis), read_peaks(web_services.redis)
    slots = {pool.name: pool.slots for pool in web_services.pool_selector}
    return CollisionMeter(
        peaks=[PoolPeak(pool=pool, most=peaks.get(pool, 0), allowed=slots[pool]) for pool in pools],
        seen=int(counters.get(("collisions", (), ""), 0)),
        turns_refused=int(sum(value for (name, _, _), value in counters.items() if name == "turns_refused")),
    )


@router.route("GET", "/account-hours", query=CapacityQuery, response=AccountTimes, errors=(404,))
def list_account_hours(query: CapacityQuery) -> AccountTimes:
    """List what the workers of each credential did in each of the last 24 hours, as far as it is written.

    It is written once a minute, in whole seconds. Hours in which a credential had no worker have no share.
    """
    redis, store, hours = services().redis, open_store(), list_hours()
    by_hour = read_account_hours(redis, hours)
    credentials = [
        (pool, id_, state) for pool in select_pools(query.pool) for id_, state in sorted(store.get_states(pool).items())
    ]
    names = find_credential_names(redis, [id_ for _, id_, _ in credentials])
    rows = []
    for pool, id_, state in credentials:
        of_hours = [hour.get(id_, {}) for hour in by_hour]
        seconds = add_up(of_hours)
        rows.append(
            AccountTime(
                credential=id_,
                credential_name=names.get(id_, ""),
                pool=pool,
                state=state,
                seconds=seconds,
                busy_share=compute_busy_share(seconds),
                busy_shares=[compute_busy_share(hour) for hour in of_hours],
            )
        )
    return AccountTimes(hours=hours, data=rows)


def add_up(hours: list[dict[str, float]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for hour in hours:
        for state, count in hour.items():
            seconds[state] = seconds.get(state, 0.0) + count
    return seconds


def read_last_day(credential_id: str) -> dict[str, float]:
    """What the workers of one credential did in the last 24 hours: state -> seconds."""
    return add_up(read_hours_of(services().redis, credential_id, list_hours()))
