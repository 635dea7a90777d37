"""CPU time and memory of processes, by kind."""

from collections import defaultdict
from collections.abc import Iterable

import psutil

#: Pairs of a kind (its name in results) and a process.
LabelledProcesses = Iterable[tuple[str, psutil.Process]]


def read_name(process: psutil.Process) -> str:
    """The process's name; '' once it has ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def read_command_line(process: psutil.Process) -> str:
    """The process's arguments, separated by spaces; '' once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def sum_cpu_seconds(processes: LabelledProcesses) -> dict[str, float]:
    """CPU time so far, by kind."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes:
        times = process.cpu_times()
        seconds[kind] += times.user + times.system
    return seconds


def sum_memory(processes: LabelledProcesses) -> dict[str, float]:
    """Proportional set size in MB, by kind; shared pages count once."""
    megabytes: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes:
        megabytes[kind] += process.memory_full_info().pss / 2**20
    return megabytes
