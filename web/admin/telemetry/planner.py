"""Admin API: how many accounts a load of the past would have needed."""

from dataclasses import asdict

import gevent

from shared.errors import ApiError
from shared.queue_view import plan
from shared.queue_view.planner import Wish
from web.admin.api import router
from web.admin.credentials import list_configured_pools
from web.admin.telemetry.schemas import Outlook, Plan, PlanQuery
from web.services import services


@router.route("GET", "/plan", query=PlanQuery, response=Plan, errors=(404, 422))
def make_plan(query: PlanQuery) -> Plan:
    """Find out how many accounts it takes for so many per cent of a past load's requests to wait no longer than wished.

    The load is replayed from the request log, its latest 5,000 requests at most, first come, first served.
    """
    redis, pool = services().redis, select_pool(query.pool)
    if (query.since is None) != (query.until is None):
        raise ApiError(422, "invalid_parameter", "since and until belong together", param="until")
    if query.since is None or query.until is None:
        since, until = plan.find_period(redis, pool, query.period)
    else:
        since, until = query.since, query.until
    # Relayed requests go on between slices of it.
    found = plan.make_plan(redis, pool, since, until, Wish(query.wait, query.percent / 100), lambda: gevent.sleep(0))
    values = asdict(found)
    return Plan(**{**values, "outlooks": [Outlook(**each) for each in values["outlooks"]]})


def select_pool(name: str) -> str:
    """That configured pool, or the first one for ''. Raises ApiError 404."""
    pools = list_configured_pools()
    if name and name not in pools:
        raise ApiError(404, "not_found", f"no pool {name!r}", param="pool")
    return name or pools[0]
