"""The processes of a running farm, in the order in which they start; they end in the opposite order.

One that dies is started again, after longer pauses if it dies again and again.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from honcho.environ import parse_procfile

from shared.errors import FarmError

#: Seconds that each kind gets to end: the front and the workers let running requests finish.
STOP_TIMEOUT_SECONDS = 80.0
#: The Procfile's name of the front.
FIRST_TO_STOP = "web"
#: Settings that a process of the Procfile has no use for: the front never opens a token (I9).
WITHHELD_SETTINGS = {"web": ("FARM_SECRET_KEY", "FARM_CLIENT_SECRET")}
#: Seconds after which a death is forgotten.
DEATH_WINDOW_SECONDS = 60.0
#: Seconds before a process that died a second time is started again; doubled up to the longest.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 15.0


@dataclass
class ManagedProcess:
    """One process, and how it is started again."""

    process: "subprocess.Popen[bytes]"
    restart: Callable[[], "subprocess.Popen[bytes]"]
    #: When it died, by the monotonic clock; those of long ago are forgotten.
    died_at: list[float] = field(default_factory=list)
    #: When it is to be started again; 0 while it runs.
    restart_at: float = 0.0

    def record_death(self, now: float) -> None:
        """It has died, or could not be started: the next try is due at once, or later and later."""
        self.died_at = [at for at in self.died_at if now - at < DEATH_WINDOW_SECONDS] + [now]
        before = len(self.died_at) - 1
        self.restart_at = now + (min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2 ** (before - 1)) if before else 0.0)


@dataclass
class ProcessGroup:
    """What runs, by name."""

    running: dict[str, ManagedProcess] = field(default_factory=dict)
    _procfile_names: list[str] = field(default_factory=list)

    def add(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
        """Starts a process by that function, and again when it has died."""
        process = start()
        self.running[name] = ManagedProcess(process, start)
        return process

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Starts a process in a session of its own, so that Ctrl-C in the terminal reaches only the launcher."""
        self.add(name, lambda: start_in_session(command, environment))

    def start_procfile(self, file: Path, environment: Mapping[str, str]) -> None:
        """Starts what the Procfile lists; each without the secrets that are not for it."""
        for name, command in parse_procfile(file.read_text()).processes.items():
            hidden = WITHHELD_SETTINGS.get(name, ())
            kept = {key: value for key, value in environment.items() if key not in hidden}
            self.start(name, ["/bin/sh", "-c", f"exec {command}"], kept)
            self._procfile_names.append(name)

    def pids(self) -> list[int]:
        """The ids of all, the first started first."""
        return [managed.process.pid for managed in self.running.values()]

    def find_dead(self) -> tuple[str, int] | None:
        """Name and exit code of a process that has ended by itself; None when all live."""
        for name, managed in self.running.items():
            code = managed.process.poll()
            if code is not None:
                return name, code
        return None

    def restart_dead(self, warn: Callable[[str], None]) -> bool:
        """Starts again what has died; returns whether anything was.

        What a dead one has started itself is left alone: it notices, and lets its running requests end.
        """
        changed = False
        for name, managed in self.running.items():
            code = managed.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            if not managed.restart_at:
                managed.record_death(now)
                warn(f"{name} ended with {code}; starting it again")
            if now >= managed.restart_at:
                try:
                    managed.process, managed.restart_at, changed = managed.restart(), 0.0, True
                except (FarmError, OSError) as error:
                    managed.record_death(now)
                    warn(f"{name} can't be started: {error}")
        return changed

    def reload(self) -> None:
        """Has those of the Procfile read farm.toml again: SIGHUP, as gunicorn and the workers' supervisor take it."""
        for name in self._procfile_names:
            if self.running[name].process.poll() is None:
                self.running[name].process.send_signal(signal.SIGHUP)

    def stop(self, *, hurry: bool = False) -> None:
        """Ends all, one by one: the front, so that nothing new comes, then the rest, the last started first."""
        names = list(self.running)[::-1]
        for name in sorted(names, key=lambda name: name != FIRST_TO_STOP):
            stop_process(self.running.pop(name).process, 3.0 if hurry else STOP_TIMEOUT_SECONDS)


def start_in_session(
    command: list[str], environment: Mapping[str, str], stdout: int | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a process in a session of its own."""
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True, stdout=stdout
    )


def stop_process(process: "subprocess.Popen[bytes]", timeout: float) -> None:
    """SIGTERM, patience, then SIGKILL to its whole session."""
    if process.poll() is None:
        process.terminate()
        until = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
    kill_session(process)
    process.wait()


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to what is left of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
