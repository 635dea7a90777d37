"""Faults under load, one a row: what is broken while clients stream, and what must hold; every answer is checked.

A row takes a Scale, so that the test suite runs the same rows smaller. What is broken, and when, comes from a seed.
"""

from collections.abc import Callable

from bench.faults import clients, processes, soak, store, upstream
from bench.faults.common import SMALL, Scale
from bench.measured import Measured

ROWS: dict[str, Callable[[Scale], list[Measured]]] = {
    "mixed": upstream.mixed,
    "dead": upstream.dead,
    "cuts": upstream.cuts,
    "killed-workers": processes.killed_workers,
    "killed-host": processes.killed_host,
    "killed-front": processes.killed_front,
    "reloaded-front": processes.reloaded_front,
    "killed-redis": store.killed_redis,
    "slow-redis": store.slow,
    "full-redis": store.full,
    "killed-pubsub": store.killed_connections,
    "frozen": processes.frozen,
    "rotation": processes.rotation,
    "leavers": clients.leavers,
    "slow-readers": clients.slow_readers,
    "soak": soak.soak,
}

__all__ = ["ROWS", "SMALL", "Scale"]
