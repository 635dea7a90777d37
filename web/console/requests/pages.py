"""The request log: who asked, who served it, how long it took, and why it failed."""

from collections import defaultdict
from typing import Any

from werkzeug.wrappers import Response as BaseResponse

from shared.errors import ApiError
from shared.observability.names_by_id import find_credential_names, find_key_names
from shared.observability.request_log import LogFilter
from shared.queue_view.live_requests import LiveRequests
from web.admin.pagination import parse_stream_cursor
from web.admin.request_log import read_log_page
from web.admin.schemas.fields import Empty
from web.admin.schemas.usage import LogQuery
from web.admin.telemetry.queue import cancel, list_running, list_waiting
from web.admin.telemetry.schemas import QueueQuery, WaitingQuery
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.lists import read_choice, read_text
from web.console.requests.log_search import search
from web.console.requests.waterfall import list_steps
from web.services import services

#: Parameters of the page that are filters of the log.
FILTERS = ("key", "pool", "model", "credential", "endpoint", "code")
SHOWN = 100
#: Waiting and running requests of a pool among which one is looked for.
MAX_LISTED = 1000


@blueprint.get("/requests")
def requests() -> str:
    filters: dict[str, Any] = {name: read_text(name)[:100] for name in FILTERS}
    filters["outcome"] = read_choice("outcome", ("ok", "failed"))
    times: dict[str, Any] = {name: read_number(name) for name in ("since", "until")}
    log_filter = LogFilter(times["since"] or 0.0, times["until"] or float("inf"), **filters)
    page = search(log_filter, SHOWN, parse_stream_cursor(read_text("cursor")[:100]))
    is_filtered = any(filters.values()) or any(times.values())
    return render_page(
        "requests.html", active="requests", page=page, filters=filters, times=times, is_filtered=is_filtered
    )


def read_number(name: str) -> float | None:
    """A time of the query in seconds since the epoch, None without one."""
    text = read_text(name)
    return float(text[:15]) if text.replace(".", "", 1).isdecimal() else None


@blueprint.get("/requests/<request_id>")
def request_page(request_id: str) -> str:
    found = read_log_page(LogQuery(request=request_id[:100], limit=1)).data
    if not found:
        return show_live_request(request_id)
    entry = found[0]
    return render_page("request.html", active="requests", entry=entry, steps=list_steps(entry), names=find_names(entry))


def show_live_request(request_id: str) -> str:
    """A request that waits or runs. Raises ApiError 404."""
    live = LiveRequests(services().redis).find(request_id)
    if live is None:
        raise ApiError(404, "not_found", "there is no such request: it never was, or ended long ago")
    (queue,) = list_waiting(WaitingQuery(pool=live.pool, limit=MAX_LISTED)).data
    running = list_running(QueueQuery(pool=live.pool, limit=MAX_LISTED)).data
    return render_page(
        "live_request.html",
        active="requests",
        live=live,
        waiting=next((each for each in (*queue.waiting, *queue.held) if each.request == request_id), None),
        running=next((each for each in running if each.request == request_id), None),
    )


def find_names(entry: dict[str, Any]) -> defaultdict[str, str]:
    """Names of the accounts and keys that the entry has, '' for others."""
    redis = services().redis
    accounts = {entry["credential"], *(attempt["credential"] for attempt in entry["tried"])}
    names = find_credential_names(redis, accounts) | find_key_names(redis, [each["key"] for each in entry["ahead"]])
    return defaultdict(str, names)


@blueprint.post("/requests/<request_id>/cancel")
def cancel_request(request_id: str) -> BaseResponse:
    """Ends a waiting or running request; its caller gets an error."""
    cancel(request_id, Empty())
    return go_to("queue", "request_cancelled")
