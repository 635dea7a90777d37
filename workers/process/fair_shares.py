"""How many credentials each worker process should hold: an even share, within each one's capacity; pure."""

from collections.abc import Mapping

#: Capacity of a process that takes all it can get.
UNLIMITED_CAPACITY = 1_000_000


def split_evenly(total: int, capacities: Mapping[str, int]) -> dict[str, int]:
    """Splits `total` among processes: as even as their capacities allow, all of it if they can hold it.

    Every process computes the same answer from the same list, because ties go by name.
    """
    shares: dict[str, int] = {}
    left = total
    ordered = sorted(capacities, key=lambda name: (capacities[name], name))
    for i, name in enumerate(ordered):
        shares[name] = min(capacities[name], left // (len(ordered) - i))
        left -= shares[name]
    return shares
