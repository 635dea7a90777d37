"""Keeps the worker processes alive: starts them, restarts one that dies, passes on the signal to stop; no Redis."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

#: Seconds before a process that died is started again; doubled while it dies young, up to the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
#: A process that lived so many seconds is not called unstable.
STABLE = 30.0
#: Seconds that processes get to drain before they are killed.
PATIENCE = 75.0
#: The child's exit code for a mistake of configuration, which no restart mends (workers.child.MISCONFIGURED).
MISCONFIGURED = 2
TICK = 0.1
#: Argument of a worker process: import the refresh tokens files first.
IMPORT = "--import"


class Child:
    """One worker process and when to start it again."""

    def __init__(self, command: Sequence[str], only_first: Sequence[str]) -> None:
        self._command = command
        self._only_first = only_first
        self._pause = FIRST_PAUSE
        self._start_at = 0.0
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def tend(self) -> int | None:
        """Starts it when it is time; returns its exit code when it has just died."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_at:
                self._started_at = now
                self.process = subprocess.Popen([*self._command, *self._only_first])
                self._only_first = ()
            return None
        code = self.process.poll()
        if code is not None:
            self._pause = FIRST_PAUSE if now - self._started_at > STABLE else min(2 * self._pause, LONGEST_PAUSE)
            self._start_at = now + self._pause
            self.process = None
        return code


class Supervisor:
    """Keeps `count` children alive until it is told to stop; `only_first` are arguments of their first start."""

    def __init__(self, command: Sequence[str], count: int, only_first: Sequence[str] = ()) -> None:
        self._children = [Child(command, only_first) for _ in range(count)]
        self._stopping = False

    def run(self) -> int:
        """Returns the exit code: 0 after SIGTERM or SIGINT, the child's own when it is misconfigured."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        code = 0
        while not self._stopping:
            for child in self._children:
                died = child.tend()
                if died == MISCONFIGURED:
                    self._stopping, code = True, 1
                elif died is not None and not self._stopping:
                    print(f"farm: a worker process ended with {died}; starting it again", file=sys.stderr, flush=True)
            time.sleep(TICK)
        self._end()
        return code

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _end(self) -> None:
        """SIGTERM to all, then patience, then SIGKILL."""
        running = [child.process for child in self._children if child.process]
        for process in running:
            process.terminate()
        until = time.monotonic() + PATIENCE
        for process in running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
