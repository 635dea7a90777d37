"""Groups of events that are one thing to their reader: the same in one pool, shortly after each other. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from web.admin.telemetry.schemas import Event

#: Seconds between two events of a group, at most.
GROUP_SECONDS = 3.0


@dataclass(frozen=True)
class EventGroup:
    """Events of one kind, pool and reason, the newest first; at least one."""

    events: Sequence[Event]

    @property
    def first(self) -> Event:
        """The newest, which stands for all."""
        return self.events[0]

    @property
    def seconds(self) -> float:
        return self.events[0].time - self.events[-1].time


def group_events(events: Iterable[Event]) -> list[EventGroup]:
    """Groups what comes from the newest to the oldest. Other events in between do not end a group.

    What operators change stays single: each has its author and its target.
    """
    groups: list[list[Event]] = []
    latest: dict[tuple[str, str, str], list[Event]] = {}
    for event in events:
        kind = (event.kind, event.pool, event.reason)
        group = latest.get(kind)
        if group and event.kind != "operator" and group[-1].time - event.time <= GROUP_SECONDS:
            group.append(event)
        else:
            latest[kind] = [event]
            groups.append(latest[kind])
    return [EventGroup(group) for group in groups]
