"""Ends whatever a benchmark has started, however the benchmark itself ends."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

#: Environment variable that all processes of a run inherit, detached ones too; its value is the benchmark's process id.
RUN_VARIABLE = "BENCH_RUN"
#: Signals after which everything is ended in order, as it is after Ctrl-C.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def end_all_on_exit() -> Iterator[None]:
    """1. A signal to end leaves each `with` block by its way out. 2. What is running then is killed."""
    os.environ[RUN_VARIABLE] = str(os.getpid())
    for signum in ENDING_SIGNALS:
        signal.signal(signum, exit_once)
    try:
        yield
    finally:
        for process in [*psutil.Process().children(recursive=True), *find_processes(os.getpid())]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def exit_once(signum: int, frame: FrameType | None) -> None:
    """Raises SystemExit at the first signal; the ways out are not to be cut short by another."""
    for each in (*ENDING_SIGNALS, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + signum)


def find_processes(run: int) -> list[psutil.Process]:
    """The processes that a benchmark has started, by its process id; Redis may write its title over its environment."""
    return [process for process in psutil.process_iter() if process.pid != run and read_run(process) == str(run)]


def read_run(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(RUN_VARIABLE, ""))
    except psutil.Error:
        return ""  # It has ended, or belongs to another user.
