"""Splits credentials evenly among the worker processes, within their capacities. No I/O."""

from collections.abc import Mapping

#: Capacity of a process without a limit.
UNLIMITED_CAPACITY = 1_000_000


def split_evenly(total: int, capacities: Mapping[str, int]) -> dict[str, int]:
    """Splits `total` as evenly as the capacities allow; what exceeds them all is left over.

    Deterministic: processes with the same input compute the same shares, because ties are broken by name.
    """
    shares: dict[str, int] = {}
    remaining = total
    ordered = sorted(capacities, key=lambda name: (capacities[name], name))
    for i, name in enumerate(ordered):
        shares[name] = min(capacities[name], remaining // (len(ordered) - i))
        remaining -= shares[name]
    return shares
