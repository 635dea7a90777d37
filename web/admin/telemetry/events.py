"""Admin API: the farm's time line."""

from dataclasses import asdict

from shared.observability.event_log import EventFilter, read_events
from shared.observability.names_by_id import find_credential_names
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
    names = find_credential_names(services().redis, [event.credential for event in page])
    data = [Event(**asdict(event), credential_name=names.get(event.credential, "")) for event in page]
    return EventPage(data=data, next=page[-1].id if has_more else None)
