"""The processes of a running farm, in the order in which they start; they end in the opposite order."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from honcho.environ import parse_procfile

#: Seconds that each kind gets to end: the front and the workers let running requests finish.
PATIENCE = 80.0
#: The Procfile's name of the front.
FIRST_TO_END = "web"
#: Settings that a process of the Procfile has no use for: the front never opens a token (I9).
NOT_FOR = {"web": ("FARM_SECRET_KEY", "FARM_CLIENT_SECRET")}


@dataclass
class Processes:
    """What runs, by name."""

    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def add(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """A process that was started elsewhere."""
        self.running[name] = process

    def start(self, name: str, command: list[str], environment: Mapping[str, str], stdout: int | None = None) -> None:
        """Starts a process in a session of its own, so that Ctrl-C in the terminal reaches only the launcher."""
        self.running[name] = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True, stdout=stdout
        )

    def start_procfile(self, file: Path, environment: Mapping[str, str]) -> None:
        """Starts what the Procfile lists; each without the secrets that are not for it."""
        for name, command in parse_procfile(file.read_text()).processes.items():
            hidden = NOT_FOR.get(name, ())
            kept = {key: value for key, value in environment.items() if key not in hidden}
            self.start(name, ["/bin/sh", "-c", f"exec {command}"], kept)

    def died(self) -> tuple[str, int] | None:
        """Name and exit code of a process that has ended by itself; None when all live."""
        for name, process in self.running.items():
            code = process.poll()
            if code is not None:
                return name, code
        return None

    def stop(self, *, hurry: bool = False) -> None:
        """Ends all, one by one: the front, so that nothing new comes, then the rest, the last started first."""
        names = list(self.running)[::-1]
        for name in sorted(names, key=lambda name: name != FIRST_TO_END):
            end(self.running.pop(name), 3.0 if hurry else PATIENCE)


def end(process: "subprocess.Popen[bytes]", patience: float) -> None:
    """SIGTERM, patience, then SIGKILL to its whole session."""
    if process.poll() is None:
        process.terminate()
        until = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
