"""What a running farm leaves in its data dir: a lock that tells whether it runs, and a record of its processes."""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

LOCK_FILE, RECORD_FILE, LOG_FILE = "farm.lock", "farm.json", "farm.log"


@dataclass
class FarmRecord:
    """The record of a running farm."""

    pid: int
    url: str
    redis_url: str
    started_at: float
    #: Process id -> when it was created, so that a number used again is not taken for it.
    processes: dict[str, float] = field(default_factory=dict)


class DataDir:
    """The data dir of one farm."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._lock_file: IO[str] | None = None

    @property
    def log_file(self) -> Path:
        """The log of a detached farm."""
        return self.path / LOG_FILE

    def create(self) -> None:
        """Makes the directory, for its owner only. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lock(self) -> bool:
        """Takes the lock for as long as this process lives; False when another farm has it."""
        self.create()
        lock = (self.path / LOCK_FILE).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock_file = lock
        return True

    def is_locked(self) -> bool:
        """Whether a farm runs here."""
        try:
            with (self.path / LOCK_FILE).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def unlock(self) -> None:
        """Leaves nothing of a running farm behind."""
        for name in (RECORD_FILE, LOCK_FILE):
            (self.path / name).unlink(missing_ok=True)
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    def write_record(self, running: FarmRecord) -> None:
        """Keeps the record, whole or not at all."""
        draft = self.path / f"{RECORD_FILE}.new"
        draft.write_text(json.dumps(asdict(running)))
        draft.chmod(0o600)
        draft.replace(self.path / RECORD_FILE)

    def read_record(self) -> FarmRecord | None:
        """The record, of a farm that runs or of one that was killed; None without one, or when it can't be read."""
        try:
            found: dict[str, Any] = json.loads((self.path / RECORD_FILE).read_text())
            return FarmRecord(**found)
        except (OSError, ValueError, TypeError):
            return None


def get_create_time(pid: int) -> float:
    """When a process was created; 0 when it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def has_ended(pid: int) -> bool:
    """Whether a process is gone; one that only waits to be reaped counts as gone."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def stop_leftovers(running: FarmRecord) -> int:
    """Ends processes that a killed farm left; returns how many. A process id that was used again is left alone.

    The first that was started is the private Redis, if there is one; it ends last, when the others have drained.
    """
    known = [(int(pid), created) for pid, created in running.processes.items()]
    left = [pid for pid, created in known if pid != os.getpid() and abs(get_create_time(pid) - created) < 1]
    return stop_trees(left[1:]) + stop_trees(left[:1])


def stop_trees(pids: list[int], timeout: float = 40.0) -> int:
    """Ends processes and what they have started, with patience; returns how many."""
    found = [psutil.Process(pid) for pid in pids]
    found += [child for process in found for child in process.children(recursive=True)]
    for process in found:
        send_signal(process, "terminate")
    _, alive = psutil.wait_procs(found, timeout=timeout)
    for process in alive:
        send_signal(process, "kill")
    psutil.wait_procs(alive, timeout=5.0)
    return len(found)


def send_signal(process: psutil.Process, what: str) -> None:
    """Signals a process that may be gone by now."""
    try:
        getattr(process, what)()
    except psutil.NoSuchProcess:
        return


def wait_until(condition: Any, timeout: float) -> bool:
    """Waits for a condition; False when it does not come."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
