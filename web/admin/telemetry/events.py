"""Admin API: the farm's time line."""

from dataclasses import asdict

from shared.observability.event_log import EventFilter, read_events
from web.admin.api import router
from web.admin.pagination import parse_stream_cursor, take_page
from web.admin.telemetry.schemas import Event, EventPage, EventQuery
from web.services import services


@router.route("GET", "/events", query=EventQuery, response=EventPage, errors=(404,))
def list_events(query: EventQuery) -> EventPage:
    """List what happened to accounts, upstreams, processes and Redis, and what operators changed, newest first."""
    until = float("inf") if query.until is None else query.until
    event_filter = EventFilter(query.since or 0.0, until, query.kind, query.pool, query.credential)
    events = read_events(services().redis, event_filter, parse_stream_cursor(query.cursor))
    page, has_more = take_page(events, query.limit)
    return EventPage(data=[Event(**asdict(event)) for event in page], next=page[-1].id if has_more else None)
