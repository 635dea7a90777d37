"""Admin API: the farm's time line."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from shared.errors import ApiError
from shared.observability.event_log import MAX_EVENTS, EventFilter, read_event, read_events, read_events_after
from shared.observability.event_log import Event as StoredEvent
from shared.observability.names_by_id import find_credential_names
from web.admin.api import router
from web.admin.pagination import parse_stream_cursor, take_page
from web.admin.telemetry.schemas import Event, EventPage, EventQuery, Incident
from web.services import services

#: Kind of the event that opens a breaker -> of the one that closes it.
CLOSES = {"breaker_opened": "breaker_closed", "token_breaker_opened": "token_breaker_closed"}


@router.route("GET", "/events", query=EventQuery, response=EventPage, errors=(404,))
def list_events(query: EventQuery) -> EventPage:
    """List what happened to accounts, upstreams, processes and Redis, and what operators changed, newest first."""
    until = float("inf") if query.until is None else query.until
    event_filter = EventFilter(query.since or 0.0, until, query.kind, query.pool, query.credential)
    events = read_events(services().redis, event_filter, parse_stream_cursor(query.cursor))
    page, has_more = take_page(events, query.limit)
    return EventPage(data=to_schemas(page), next=page[-1].id if has_more else None)


def to_schemas(events: Sequence[StoredEvent]) -> list[Event]:
    """Adds the names of accounts."""
    ids = {id_ for event in events for id_ in (event.credential, *(fault.credential for fault in event.faults))}
    names = find_credential_names(services().redis, ids)
    return [Event.model_validate(add_names(asdict(event), names)) for event in events]


def add_names(event: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    faults = [{**fault, "credential_name": names.get(fault["credential"], "")} for fault in event["faults"]]
    return {**event, "credential_name": names.get(event["credential"], ""), "faults": faults}


@router.route("GET", "/events/<event_id>/incident", response=Incident)
def get_incident(event_id: str) -> Incident:
    """Replay a circuit breaker: what opened it, each failed probe, its close; by the id of the opening's event."""
    redis = services().redis
    opened = read_event(redis, parse_stream_cursor(event_id)) if event_id else None
    if opened is None or opened.kind not in CLOSES:
        raise ApiError(404, "not_found", "no circuit breaker was opened by this event", param="event_id")
    of_pool = (event for event in islice(read_events_after(redis, opened.id), MAX_EVENTS) if event.pool == opened.pool)
    found: list[StoredEvent] = []
    for event in of_pool:
        found.append(event)
        if event.kind == CLOSES[opened.kind]:
            break
    closed = found.pop() if found and found[-1].kind == CLOSES[opened.kind] else None
    probes = [event for event in found if event.kind == "breaker_probed" and opened.kind == "breaker_opened"]
    others = Counter(event.kind for event in found if event not in probes)
    first, *rest = to_schemas([opened, *probes, *([closed] if closed else [])])
    return Incident(
        opened=first, probes=rest[: len(probes)], closed=rest[-1] if closed else None, meanwhile=dict(others)
    )
