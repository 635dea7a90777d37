"""When a queue will be empty, or full: arithmetic on its depth, its arrivals and its workers. No I/O.

What waits now is drained as service_order.py foretells; requests go on arriving as in the last minute, or not at all.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DrainClock:
    """Seconds from now; None for what can't be told, or won't happen."""

    #: Requests per second that joined the queue in the last minute and did not leave it unserved; None if not measured.
    arrival_rate: float | None = None
    #: Requests per second that the workers in service can serve; 0 while none may.
    capacity: float | None = None
    #: Until all that wait now are started, if nothing more arrives; the same with `more_accounts` more.
    empty_in: float | None = None
    more_accounts: int = 0
    empty_in_with_more: float | None = None
    #: Until nobody waits, and until the queue is full, if requests go on arriving at that rate.
    empty_in_at_rate: float | None = None
    full_in: float | None = None


def find_capacity(workers: int, mean_seconds: float | None, *, are_serving: bool) -> float | None:
    """Requests per second that so many workers serve; None while none was measured."""
    if not are_serving or not workers:
        return 0.0
    return round(workers / mean_seconds, 4) if mean_seconds else None


def foretell(
    waiting: int, room: int, arrival_rate: float | None, capacity: float | None
) -> tuple[float | None, float | None]:
    """Seconds until nobody waits, and until `room` more requests wait; each None if it won't happen or isn't known."""
    if not waiting and not arrival_rate:
        return 0.0, None
    if arrival_rate is None or capacity is None:
        return None, None
    growth = arrival_rate - capacity
    empty_in = round(waiting / -growth, 3) if growth < 0 else None
    full_in = round(max(0, room) / growth, 3) if growth > 0 else None
    return (0.0 if not waiting else empty_in), full_in
