"""Stops the processes that a killed farm left behind, by their recorded ids."""

import os
import signal
import time
from collections.abc import Callable

import psutil

from launcher.processes.data_dir import FarmRecord

#: Seconds between SIGTERM and SIGKILL.
TERMINATE_TIMEOUT_SECONDS = 40.0
#: Seconds to wait for processes to go after SIGKILL.
KILL_TIMEOUT_SECONDS = 5.0


def get_create_time(pid: int) -> float:
    """Returns when a process was created, in seconds since the epoch; 0 when it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def has_ended(pid: int) -> bool:
    """Whether a process is gone; a zombie counts as gone."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def stop_leftovers(record: FarmRecord) -> int:
    """Stops the processes of a killed farm; returns how many. Leaves reused process ids alone.

    The first recorded process is the private Redis, if there is one; it stops last, after the others have drained.
    """
    recorded = [(int(pid), created) for pid, created in record.processes.items()]
    pids = [pid for pid, created in recorded if pid != os.getpid() and abs(get_create_time(pid) - created) < 1]
    return stop_trees(pids[1:]) + stop_trees(pids[:1])


def stop_trees(pids: list[int]) -> int:
    """Stops processes and their descendants, first with SIGTERM, then with SIGKILL; returns how many."""
    processes = [psutil.Process(pid) for pid in pids]
    processes += [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        send_signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=TERMINATE_TIMEOUT_SECONDS)
    for process in alive:
        send_signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_SECONDS)
    return len(processes)


def send_signal(process: psutil.Process, signum: signal.Signals) -> None:
    """Signals a process, which may have ended in the meantime."""
    try:
        process.send_signal(signum)
    except psutil.NoSuchProcess:
        return


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Polls a condition for that many seconds; False when it stayed false."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
