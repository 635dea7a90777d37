"""Stops processes that have lost their parent: those of a killed farm, and the children of a killed process."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping

import psutil

from launcher.processes.data_dir import FarmRecord

#: Seconds between SIGTERM and SIGKILL.
TERMINATE_TIMEOUT_SECONDS = 40.0
#: Seconds to wait for processes to go after SIGKILL.
KILL_TIMEOUT_SECONDS = 5.0
#: In the command lines of the processes that fork others. Another session that has got the id of one of ours has none.
FORKING_COMMANDS = ("gunicorn", "workers")


def get_create_time(pid: int) -> float:
    """Returns when a process was created, in seconds since the epoch; 0 when it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def get_session(pid: int) -> int:
    """Returns the session id of a process; 0 when the process is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


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
    alive = [psutil.Process(pid) for pid, created in recorded if pid != os.getpid() and is_same_process(pid, created)]
    sessions = {int(pid): created for pid, created in (record.processes | record.orphaned_sessions).items()}
    return stop_processes(with_descendants(alive[1:]) + find_orphans(sessions)) + stop_processes(
        with_descendants(alive[:1])
    )


def is_same_process(pid: int, created: float) -> bool:
    return abs(get_create_time(pid) - created) < 1


def with_descendants(processes: list[psutil.Process]) -> list[psutil.Process]:
    return processes + [child for process in processes for child in process.children(recursive=True)]


def find_orphans(sessions: Mapping[int, float]) -> list[psutil.Process]:
    """The children of dead session leaders, which are given by process id and creation time (seconds since the epoch).

    They keep the leader's id as their session's, and it is not reused before all of them have ended.
    """
    dead = {leader for leader, created in sessions.items() if created > psutil.boot_time() - 1 and has_ended(leader)}
    return [process for process in psutil.process_iter() if dead and is_orphan(process, dead)]


def is_orphan(process: psutil.Process, dead_leaders: Collection[int]) -> bool:
    """Whether it lives, is in a session of one of these leaders, and is one of the farm's forks."""
    with contextlib.suppress(psutil.Error):
        if get_session(process.pid) in dead_leaders and process.status() != psutil.STATUS_ZOMBIE:
            command = " ".join(process.cmdline())
            return any(word in command for word in FORKING_COMMANDS)
    return False


def stop_processes(processes: list[psutil.Process]) -> int:
    """Stops processes, first with SIGTERM, then with SIGKILL; returns how many."""
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
