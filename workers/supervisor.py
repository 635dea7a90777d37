"""Keeps the worker processes alive, replaces all of them at a reload, stops them. No Redis.

The modules are loaded once, in the supervisor, so a forked process is up at once even on a busy machine. A process that
replaces a dead one gets the dead one's id: it may reclaim its leases without waiting for them to expire.
"""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from gevent import monkey

from shared.reload_report import report_reload
from workers.process_slot import RETIRE_SIGNAL, SUPERVISOR_SIGNALS, LeavingProcess, ProcessSlot, Serve

#: Exit code of a process for a configuration error, which no restart can fix.
EXIT_MISCONFIGURED = 2
POLL_SECONDS = 0.05
sleep = monkey.get_original("time", "sleep")


@dataclass(frozen=True)
class ProcessPlan:
    """How to run the worker processes with certain settings."""

    #: Runs in each process; returns its exit code.
    serve: Serve
    count: int
    #: Seconds that running requests get after SIGTERM, and after RETIRE_SIGNAL.
    drain_seconds: float
    retire_seconds: float


class Generation:
    """The processes that run with the same settings."""

    def __init__(self, plan: ProcessPlan, *, may_wait: bool) -> None:
        self._plan = plan
        self._slots = [ProcessSlot(plan.serve, may_wait=may_wait) for _ in range(plan.count)]
        #: Whether all its processes were ready at the same time: then the settings are good.
        self.has_served = False

    def poll(self) -> bool:
        """Starts and restarts processes; False when the settings turn out to be unusable, which no restart can fix."""
        for slot in self._slots:
            exit_code = slot.poll()
            if exit_code == EXIT_MISCONFIGURED and not self.has_served:
                return False
            if exit_code is not None:
                message = f"farm: a worker process exited with {exit_code}; restarting it"
                print(message, file=sys.stderr, flush=True)
        self.has_served = self.has_served or all(slot.is_ready for slot in self._slots)
        return True

    def retire(self) -> list[LeavingProcess]:
        """Makes the processes end after their running requests."""
        return [LeavingProcess(slot, RETIRE_SIGNAL, self._plan.retire_seconds) for slot in self._slots]

    def stop(self) -> list[LeavingProcess]:
        """Makes the processes end within the drain time."""
        return [LeavingProcess(slot, signal.SIGTERM, self._plan.drain_seconds) for slot in self._slots]


class Supervisor:
    """Keeps the planned processes alive until it gets SIGTERM or SIGINT.

    On SIGHUP it calls `reload`, which returns the new plan, or None for no change. The new processes start beside the
    old ones, which retire once all new ones are ready. If the new ones find their settings unusable, the old ones stay.
    """

    def __init__(self, plan: ProcessPlan, reload: Callable[[], ProcessPlan | None] = lambda: None) -> None:
        self._plan = plan
        self._current = Generation(plan, may_wait=False)
        #: New processes that are not ready yet.
        self._next: Generation | None = None
        self._next_plan = plan
        self._reload = reload
        self._reload_requested = False
        self._leaving: list[LeavingProcess] = []
        self._stop_signals = 0

    def run(self) -> int:
        """Returns the exit code: 0 after SIGTERM or SIGINT, 1 when the first processes were misconfigured."""
        for signum in SUPERVISOR_SIGNALS:
            signal.signal(signum, self._handle_signal)
        exit_code = 0
        while not self._stop_signals:
            if self._reload_requested:
                self._reload_requested = False
                self._start_reload()
            self._advance_reload()
            if not self._current.poll():
                exit_code = 1
                break
            self._leaving = [process for process in self._leaving if not process.poll()]
            sleep(POLL_SECONDS)
        self._stop_all()
        return exit_code

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self._reload_requested = True
        else:
            self._stop_signals += 1

    def _start_reload(self) -> None:
        plan = self._reload()
        if plan is not None:
            self._discard_next()
            self._next, self._next_plan = Generation(plan, may_wait=True), plan

    def _advance_reload(self) -> None:
        """Replaces the current generation when the next one is ready, or drops the next one when it is unusable."""
        if self._next is None:
            return
        if not self._next.poll():
            self._discard_next()
            report_reload("a worker process can't start with them (see the line above)")
        elif self._next.has_served:
            self._leaving += self._current.retire()
            self._current, self._next = self._next, None
            self._plan = self._next_plan
            report_reload()

    def _discard_next(self) -> None:
        if self._next is not None:
            self._leaving += self._next.stop()
            self._next = None

    def _stop_all(self) -> None:
        """Stops all processes, retiring ones too, and waits for them; another signal to stop cuts the drain short."""
        self._discard_next()
        drain_seconds = self._plan.drain_seconds
        self._leaving = [LeavingProcess(p.slot, signal.SIGTERM, drain_seconds) for p in self._leaving]
        self._leaving += self._current.stop()
        handled = self._stop_signals
        while self._leaving:
            if self._stop_signals > handled:
                handled = self._stop_signals
                self._leaving = [LeavingProcess(p.slot, signal.SIGTERM, 0) for p in self._leaving]
            self._leaving = [process for process in self._leaving if not process.poll()]
            sleep(POLL_SECONDS)
