"""A plan: how many accounts a pool would have needed for a load of the past."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis

from shared.observability.pool_status import read_pool_statuses
from shared.queue_view.past_load import HOUR_SECONDS, MAX_REQUESTS, find_busiest_hour, measure_service_share, read_load
from shared.queue_view.planner import (
    Outlook,
    Pause,
    Wish,
    choose_accounts,
    find_accounts,
    find_accounts_by_erlang_c,
    go_on,
    look_ahead,
    offered_accounts,
)

DAY_SECONDS = 24 * HOUR_SECONDS
#: Period -> seconds before now, and whether the busiest hour of them is meant.
PERIODS = {
    "busiest-hour": (DAY_SECONDS, True),
    "busiest-hour-of-week": (7 * DAY_SECONDS, True),
    "hour": (HOUR_SECONDS, False),
    "day": (DAY_SECONDS, False),
}


@dataclass(frozen=True)
class Plan:
    """Times are seconds since the epoch."""

    pool: str
    since: float
    until: float
    wish: Wish
    requests: int
    is_cut: bool
    refused: int
    #: Average seconds of an account's time per request, and accounts that the load kept busy on average.
    mean_seconds: float
    offered: float
    #: Share of the accounts' time in which they could serve; None if it was not sampled.
    service_share: float | None
    #: Accounts in service now.
    present: int
    #: Fewest accounts that fulfil the wish, if they never rest; those that it takes with the rests that were measured;
    #: and what Erlang C says. None if there was no load, or no number fulfils it.
    accounts: int | None
    accounts_with_rests: int | None
    accounts_by_erlang_c: int | None
    outlooks: Sequence[Outlook]


def find_period(redis: Redis, pool: str, period: str) -> tuple[float, float]:
    """Start and end of one of PERIODS."""
    seconds, is_busiest_hour = PERIODS[period]
    now = time.time()
    hour = find_busiest_hour(redis, pool, now - seconds, now) if is_busiest_hour else 0.0
    return (hour, hour + HOUR_SECONDS) if hour else (now - seconds, now)


def make_plan(
    redis: Redis,
    pool: str,
    since: float,
    until: float,
    wish: Wish,
    pause: Pause = go_on,
    most: int = MAX_REQUESTS,
) -> Plan:
    """For the latest `most` requests of that time. `pause` is called now and then, because it takes a while."""
    load = read_load(redis, pool, since, until, pause, most)
    demands, present = load.demands, read_pool_statuses(redis, [pool])[0].credentials["active"]
    needed = find_accounts(demands, wish, pause) if demands else None
    share, offered = measure_service_share(redis, pool, since, until), offered_accounts(demands)
    numbers = choose_accounts(needed, present) if needed else []
    return Plan(
        pool=pool,
        since=load.since,
        until=until,
        wish=wish,
        requests=len(demands),
        is_cut=load.is_cut,
        refused=load.refused,
        mean_seconds=round(load.mean_seconds, 3),
        offered=round(offered, 3),
        service_share=share,
        present=present,
        accounts=needed,
        accounts_with_rests=math.ceil(needed / share) if needed and share else needed,
        accounts_by_erlang_c=find_accounts_by_erlang_c(offered, load.mean_seconds, wish) if demands else None,
        outlooks=[look_ahead(demands, number, wish, pause) for number in numbers],
    )
