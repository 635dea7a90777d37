"""What processes cost: CPU time and memory, by kind."""

from collections import defaultdict
from collections.abc import Iterable

import psutil

#: A process and what it is called in results.
Kinds = Iterable[tuple[str, psutil.Process]]


def cpu_seconds(processes: Kinds) -> dict[str, float]:
    """CPU time so far, by kind."""
    found: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes:
        times = process.cpu_times()
        found[kind] += times.user + times.system
    return found


def memory(processes: Kinds) -> dict[str, float]:
    """Proportional set size in MB, by kind; shared pages count once."""
    found: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes:
        found[kind] += process.memory_full_info().pss / 2**20
    return found
