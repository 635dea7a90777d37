"""The time line: what happened, several at once as one row, with a link to each moment."""

from typing import Any

from shared import clock
from shared.observability.event_log import EVENTS
from web.admin.pagination import parse_stream_cursor
from web.admin.telemetry.events import get_incident, list_events
from web.admin.telemetry.schemas import EventQuery
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.lists import read_choice, read_text
from web.console.timeline import wording
from web.console.timeline.grouping import EventGroup, group_events

#: Events of a page, on an account's page, and on the overview.
SHOWN, SHOWN_ON_ACCOUNT, SHOWN_ON_OVERVIEW = 300, 50, 20
#: Seconds before and after a moment that its link shows.
AROUND_SECONDS = 300


@blueprint.get("/events")
def events() -> str:
    filters: dict[str, Any] = {name: read_text(name)[:100] for name in ("pool", "credential")}
    filters["kind"] = read_choice("kind", tuple(EVENTS))
    reach, moment = read_choice("reach", tuple(wording.REACHES)), read_moment()
    cursor = parse_stream_cursor(read_text("cursor")[:100])
    since, until = choose_times(reach, moment)
    page = list_events(EventQuery(**filters, since=since, until=until, limit=SHOWN, cursor=cursor))
    return render_page(
        "events.html",
        active="events",
        groups=group_events(page.data),
        next=page.next,
        filters=filters,
        reach=reach,
        moment=moment,
        is_filtered=any(filters.values()) or bool(reach or moment),
        events=wording,
    )


@blueprint.get("/events/<event_id>")
def incident(event_id: str) -> str:
    """A circuit breaker from its opening to its close."""
    found = get_incident(event_id)
    ends_at = found.closed.time if found.closed else clock.now()
    begins_at = min([found.opened.time, *(fault.time for fault in found.opened.faults)])
    return render_page(
        "incident.html",
        active="events",
        incident=found,
        begins_at=begins_at,
        seconds=max(ends_at - begins_at, 1.0),
        events=wording,
    )


def read_moment() -> int:
    """`?around=`, seconds since the epoch; 0 without one."""
    text = read_text("around")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 12 else 0


def choose_times(reach: str, moment: int) -> tuple[float | None, float | None]:
    """Since when and until when events are wanted, None for any time."""
    if moment:
        return float(max(0, moment - AROUND_SECONDS)), float(moment + AROUND_SECONDS)
    return (clock.now() - wording.REACHES[reach][0] if reach else None), None


def read_latest(limit: int, credential: str = "") -> dict[str, Any]:
    """What a part of a page shows: the latest events, of one account or of all."""
    page = list_events(EventQuery(credential=credential, limit=limit))
    groups: list[EventGroup] = group_events(page.data)
    return {"groups": groups, "events": wording}
