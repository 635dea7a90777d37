"""The data dir of a running farm: a lock that shows that it is running, and a record of its processes."""

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from shared.decoding import parse_record
from shared.reload_report import find_report

LOCK_FILE, RECORD_FILE, LOG_FILE = "farm.lock", "farm.json", "farm.log"


@dataclass
class FarmRecord:
    """The record of a running farm, kept as JSON."""

    #: Process id of the launcher.
    pid: int
    url: str
    redis_url: str
    started_at: float
    #: Process id -> creation time, so that a reused process id is not mistaken for the farm's.
    processes: dict[str, float] = field(default_factory=dict)
    #: The same of processes that have died and left children behind, which still run requests.
    orphaned_sessions: dict[str, float] = field(default_factory=dict)


class DataDir:
    """The data dir of one farm."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._lock_file: IO[str] | None = None

    @property
    def log_file(self) -> Path:
        """The log of a detached farm."""
        return self.path / LOG_FILE

    def reload_report(self, process: str) -> Path:
        """The report of a process's last reload; the Procfile's name of the process, or `launcher`."""
        return find_report(self.path / "reload", process)

    def create(self) -> None:
        """Creates the directory, accessible to its owner only. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lock(self) -> bool:
        """Takes the lock for the lifetime of this process; False when another farm holds it."""
        self.create()
        while True:
            lock_file = (self.path / LOCK_FILE).open("a")
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock_file.close()
                return False
            if self._is_lock_file(lock_file):
                self._lock_file = lock_file
                return True
            lock_file.close()

    def _is_lock_file(self, file: IO[str]) -> bool:
        """Whether this open file is still the lock file; a farm that ended meanwhile has removed the one it locked."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), (self.path / LOCK_FILE).stat())
        except FileNotFoundError:
            return False

    def is_locked(self) -> bool:
        """Whether a farm is running here."""
        try:
            with (self.path / LOCK_FILE).open() as lock_file:
                fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def unlock(self) -> None:
        """Removes the record, the reports of reloads and the lock."""
        shutil.rmtree(self.reload_report("web").parent, ignore_errors=True)
        for name in (RECORD_FILE, LOCK_FILE):
            (self.path / name).unlink(missing_ok=True)
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    def write_record(self, record: FarmRecord) -> None:
        """Replaces the record atomically."""
        draft = self.path / f"{RECORD_FILE}.new"
        draft.write_text(json.dumps(asdict(record)))
        draft.chmod(0o600)
        draft.replace(self.path / RECORD_FILE)

    def read_record(self) -> FarmRecord | None:
        """Returns the record of a running or killed farm; None when it is missing or unreadable."""
        try:
            return parse_record(FarmRecord, (self.path / RECORD_FILE).read_text())
        except (OSError, ValueError):
            return None
