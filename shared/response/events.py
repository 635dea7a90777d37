"""The JSON in server-sent events. No I/O."""

from collections.abc import Iterator
from typing import Any

from shared.parsing import parse_json
from shared.protocol.sse import Event, parse_events


def iter_payloads(events: bytes) -> Iterator[tuple[Event, Any]]:
    """Yields the events that hold JSON, with its value; `events` are complete ones.

    Where several lines of data are no JSON together, each is taken for itself.
    """
    for event in parse_events(events):
        if event.data is None:
            continue
        if (payload := parse_json(event.data)) is not None:
            yield event, payload
        elif b"\n" in event.data:
            payloads = map(parse_json, event.data.split(b"\n"))
            yield from ((event, payload) for payload in payloads if payload is not None)
