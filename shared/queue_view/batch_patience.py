"""How long batch requests go on waiting behind interactive ones (FARM_BATCH_AGE, FARM_BATCH_TURNS). No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.queue_view.service_order import Servers, Turn


@dataclass(frozen=True)
class BatchPatience:
    """Where the batch band of a pool stands. Times are in seconds."""

    #: How long the oldest batch request has waited, and after how long one is due.
    oldest: float
    due_after: float
    #: Interactive requests started since the last batch request, and one in how many starts is a due batch request.
    turns: int
    every: int
    #: Turn of the next batch request, from 1 (0: it is not among those that were read), and when that is.
    next_position: int = 0
    next_in: float | None = None


def find_patience(oldest: float | None, turns: int, servers: Servers, order: Sequence[Turn]) -> BatchPatience | None:
    """None while no batch request waits. `order`: the waiting requests in the order of service."""
    if oldest is None:
        return None
    found = next(((position, turn.eta) for position, turn in enumerate(order, 1) if turn.band == "batch"), (0, None))
    position, eta = found
    next_in = None if eta is None else round(eta, 3)
    return BatchPatience(oldest, servers.batch_age, turns, servers.batch_turns, position, next_in)
