"""The capacity: what accounts' time went into in the last hour, and how each account was used over the last day."""

import time
from collections import Counter
from dataclasses import dataclass

from web.admin.credentials import list_configured_pools
from web.admin.telemetry.capacity import get_capacity, list_account_hours
from web.admin.telemetry.samples import list_samples
from web.admin.telemetry.schemas import AccountTime, CapacityQuery, SampledInterval, SampleQuery
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.formats import HOUR
from web.console.parts.lists import read_choice, read_text, take_page

#: Column -> key to sort by; accounts without a worker come last when the least used come first.
ORDERS = {
    "account": lambda row: (row.credential_name or row.credential).lower(),
    "busy": lambda row: 2.0 if row.busy_share is None else row.busy_share,
}


@dataclass(frozen=True)
class Minute:
    """A minute of the last hour, over all pools."""

    time: float
    per_second: float
    #: Busy share of the accounts' time, None when there was none.
    busy_share: float | None
    waiting: int
    interval: SampledInterval
    errors: dict[str, int]


@blueprint.get("/capacity")
def capacity() -> str:
    pool = read_text("pool")[:100]
    sort, order = read_choice("sort", tuple(ORDERS), "busy"), read_choice("order", ("asc", "desc"), "asc")
    accounts = list_account_hours(CapacityQuery(pool=pool))
    rows: list[AccountTime] = sorted(accounts.data, key=ORDERS[sort], reverse=order == "desc")
    intervals = list_samples(SampleQuery(since=time.time() - HOUR, step="60")).data
    return render_page(
        "capacity.html",
        active="capacity",
        capacity=get_capacity(),
        minutes=[describe_minute(interval) for interval in intervals],
        hours=accounts.hours,
        listing=take_page(rows),
        pool=pool,
        pools=list_configured_pools(),
        query={"sort": sort, "order": order},
    )


def describe_minute(interval: SampledInterval) -> Minute:
    pools = interval.pools.values()
    work: Counter[str] = Counter()
    for pool in pools:
        work.update(pool.account_seconds)
    total = work.total()
    return Minute(
        time=interval.time,
        per_second=sum(pool.finished for pool in pools) / interval.seconds,
        busy_share=work["busy"] / total if total else None,
        waiting=sum(pool.waiting + pool.held for pool in pools),
        interval=interval,
        errors={status: count for status, count in sorted(interval.statuses.items()) if status >= "400"},
    )
