"""What all processes do that the supervisor forks: logging, limits, and an exit code that says whose fault it was."""

import sys
from collections.abc import Callable
from typing import Protocol

import gevent

from shared import gc_tuning
from shared.errors import FarmError
from shared.file_limit import raise_file_limit
from shared.observability import logs
from shared.settings.schema import Settings
from workers.process_slot import EXIT_MISCONFIGURED


class ForkedProcess(Protocol):
    """Worker process or token refresher."""

    def run(self) -> None:
        """Runs until the process is to end."""


def run_forked(settings: Settings, start: Callable[[], ForkedProcess]) -> int:
    """Runs what `start` returns; returns the exit code. FarmError from `start` means that no restart would help."""
    gevent.reinit()
    try:
        logs.configure_logging(settings.log_level, settings.log_format)
        raise_file_limit()
        process = start()
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr, flush=True)
        return EXIT_MISCONFIGURED
    gc_tuning.tune_gc()
    process.run()
    return 0
