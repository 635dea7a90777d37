"""The processes of a running farm: started in order, restarted when they die, stopped in reverse order."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from honcho.environ import parse_procfile

from launcher.processes.data_dir import DataDir
from launcher.processes.termination import find_orphans, get_create_time, get_session, send_signal
from shared.backoff import compute_backoff
from shared.errors import FarmError
from shared.reload_report import LAUNCHER_VARIABLE, REPORT_VARIABLE

#: Seconds beyond the drain time before a process is killed: the workers wait for token refreshes in flight.
KILL_GRACE_SECONDS = 50.0
#: Seconds before a process is killed after a second signal to stop.
HURRIED_STOP_SECONDS = 5.0
#: The Procfile's name of the front.
FIRST_TO_STOP = "web"
#: Seconds before the reverse proxy is killed: the front has ended by then, only callers that read slowly are left.
STOP_SECONDS = {"proxy": 5.0}
#: Procfile name -> settings withheld from that process: the front never unseals a token (I9).
WITHHELD_SETTINGS = {"web": ("FARM_SECRET_KEY", "FARM_CLIENT_SECRET")}
#: Seconds between two checks whether the children of dead processes have ended.
ORPHAN_INTERVAL_SECONDS = 1.0
#: Seconds for which a death counts towards the backoff.
DEATH_WINDOW_SECONDS = 60.0
#: Seconds before the restart after a second death; doubled with every further one up to the maximum.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 15.0


@dataclass
class ManagedProcess:
    """One process, and how to start it again."""

    process: "subprocess.Popen[bytes]"
    start: Callable[[], "subprocess.Popen[bytes]"]
    #: Deaths within the window, by the monotonic clock.
    deaths: list[float] = field(default_factory=list)
    #: When to restart it, by the monotonic clock; 0 while it runs.
    restart_at: float = 0.0
    #: Earlier ones that have died while children of theirs ran requests: process id -> creation time.
    orphaned_sessions: dict[int, float] = field(default_factory=dict)
    _created: float = 0.0

    def __post_init__(self) -> None:
        self._created = get_create_time(self.process.pid)

    def restart(self) -> None:
        """Starts it again. Raises FarmError, OSError."""
        process = self.start()
        self.orphaned_sessions[self.process.pid] = self._created
        self.process, self.restart_at = process, 0.0
        self._created = get_create_time(process.pid)

    def record_death(self, now: float) -> None:
        """Schedules the next start after a death or a failed start: at once the first time, then with backoff."""
        self.deaths = [at for at in self.deaths if now - at < DEATH_WINDOW_SECONDS] + [now]
        earlier = len(self.deaths) - 1
        backoff = compute_backoff(MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, earlier - 1) if earlier else 0.0
        self.restart_at = now + backoff


@dataclass
class ProcessGroup:
    """The running processes by name, in the order in which they were started."""

    running: dict[str, ManagedProcess] = field(default_factory=dict)
    _procfile_names: list[str] = field(default_factory=list)
    #: When to check the orphaned sessions again, by the monotonic clock.
    _recheck_at: float = 0.0

    def add(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
        """Starts a process with that function, which also restarts it when it dies."""
        process = start()
        self.running[name] = ManagedProcess(process, start)
        return process

    def start_procfile(self, file: Path, environment: Mapping[str, str], data: DataDir) -> None:
        """Starts the processes of the Procfile, each without the settings withheld from it.

        They write the reports of their reloads into the data dir.
        """
        for name, command in parse_procfile(file.read_text()).processes.items():
            withheld = WITHHELD_SETTINGS.get(name, ())
            visible = {key: value for key, value in environment.items() if key not in withheld}
            visible[REPORT_VARIABLE] = str(data.reload_report(name).absolute())
            visible[LAUNCHER_VARIABLE] = str(os.getpid())
            self.add(name, partial(start_in_session, ["/bin/sh", "-c", f"exec {command}"], visible))
            self._procfile_names.append(name)

    def pids(self) -> list[int]:
        """Process ids in the order of the starts."""
        return [managed.process.pid for managed in self.running.values()]

    @property
    def orphaned_sessions(self) -> dict[int, float]:
        """Dead processes whose children still run: process id -> creation time."""
        managed = self.running.values()
        return {pid: created for each in managed for pid, created in each.orphaned_sessions.items()}

    def forget_ended_sessions(self) -> bool:
        """Forgets orphaned sessions that have ended, before their ids can be reused; returns whether there were any."""
        sessions, now = self.orphaned_sessions, time.monotonic()
        if not sessions or now < self._recheck_at:
            return False
        self._recheck_at = now + ORPHAN_INTERVAL_SECONDS
        living = {get_session(orphan.pid) for orphan in find_orphans(sessions)}
        for managed in self.running.values():
            managed.orphaned_sessions = {pid: at for pid, at in managed.orphaned_sessions.items() if pid in living}
        return len(self.orphaned_sessions) < len(sessions)

    def find_dead(self) -> tuple[str, int] | None:
        """Returns name and exit code of a process that has died; None when all are alive."""
        for name, managed in self.running.items():
            code = managed.process.poll()
            if code is not None:
                return name, code
        return None

    def restart_dead(self, warn: Callable[[str], None]) -> bool:
        """Restarts dead processes that are due; returns whether it restarted any.

        The children of a dead process are left alone: they notice its death and let their running requests finish.
        """
        restarted = False
        for name, managed in self.running.items():
            code = managed.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            if not managed.restart_at:
                managed.record_death(now)
                warn(f"{name} exited with {code}; restarting it")
            if now >= managed.restart_at:
                try:
                    managed.restart()
                    restarted = True
                except (FarmError, OSError) as error:
                    managed.record_death(now)
                    warn(f"{name} can't be started: {error}")
        return restarted

    def reload(self) -> None:
        """Makes the Procfile's processes read farm.toml again: SIGHUP to gunicorn and the workers' supervisor."""
        for name in self._procfile_names:
            if self.running[name].process.poll() is None:
                self.running[name].process.send_signal(signal.SIGHUP)

    def stop(self, drain_seconds: float, is_hurried: Callable[[], bool]) -> None:
        """Stops all, one by one: the front first, so that no new requests arrive, then the others, the newest first.

        Running requests get the drain time, or none of it once `is_hurried`; so do those of orphans.
        """
        names = list(self.running)[::-1]
        for name in sorted(names, key=lambda name: name != FIRST_TO_STOP):
            timeout = STOP_SECONDS.get(name, drain_seconds + KILL_GRACE_SECONDS)
            managed, deadline = self.running.pop(name), time.monotonic() + timeout
            orphans = find_orphans(managed.orphaned_sessions)
            for orphan in orphans:
                send_signal(orphan, signal.SIGTERM)
            stop_process(managed.process, timeout, is_hurried)
            end_processes(orphans, deadline, is_hurried)


def start_in_session(
    command: list[str], environment: Mapping[str, str], stdout: int | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a process in its own session, so that Ctrl-C in the terminal reaches only the launcher."""
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True, stdout=stdout
    )


def stop_process(
    process: "subprocess.Popen[bytes]", timeout: float, is_hurried: Callable[[], bool] = lambda: False
) -> None:
    """Sends SIGTERM, waits that many seconds, then sends SIGKILL to the process's whole session.

    Once `is_hurried` it sends SIGINT, which makes the front and the workers end their requests with an error at once.
    """
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + timeout
        hurried = False
        while process.poll() is None and time.monotonic() < deadline:
            if is_hurried() and not hurried:
                hurried, deadline = True, time.monotonic() + HURRIED_STOP_SECONDS
                process.send_signal(signal.SIGINT)
            time.sleep(0.02)
    kill_session(process)
    process.wait()


def end_processes(processes: list[psutil.Process], deadline: float, is_hurried: Callable[[], bool]) -> None:
    """Waits for processes that have been told to stop, as `stop_process` does; SIGKILL at the deadline."""
    hurried = False
    _, alive = psutil.wait_procs(processes, timeout=0)
    while alive and time.monotonic() < deadline:
        if is_hurried() and not hurried:
            hurried, deadline = True, time.monotonic() + HURRIED_STOP_SECONDS
            for process in alive:
                send_signal(process, signal.SIGINT)
        _, alive = psutil.wait_procs(alive, timeout=0.1)
    for process in alive:
        send_signal(process, signal.SIGKILL)


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
