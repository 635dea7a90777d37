"""Keeps the worker processes and their token refresher alive, replaces them at a reload, stops them. No Redis.

The modules are loaded once, in the supervisor, so a forked process is up at once even on a busy machine. A process that
replaces a dead one gets the dead one's id: it may reclaim its leases without waiting for them to expire.

Each generation of worker processes has a token refresher, which outlives them: a refresh that one of them has asked for
ends although it was killed or retired.
"""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from gevent import monkey

from shared.reload_report import report_reload
from workers.freeze_watch import FreezeWatch
from workers.process_slot import (
    EXIT_MISCONFIGURED,
    RETIRE_SIGNAL,
    SUPERVISOR_SIGNALS,
    LeavingProcess,
    ProcessSlot,
    Serve,
)
from workers.refresher.rendezvous import Rendezvous

POLL_SECONDS = 0.05
#: What messages call a token refresher.
REFRESHER = "the token refresher"
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
    #: Runs in the token refresher.
    serve_refresher: Serve


class Generation:
    """The processes that run with the same settings: the worker processes, and the token refresher until they end."""

    def __init__(self, plan: ProcessPlan, *, may_wait: bool) -> None:
        self._plan = plan
        self._rendezvous = Rendezvous()
        self._slots = [ProcessSlot(plan.serve, self._rendezvous, may_wait=may_wait) for _ in range(plan.count)]
        self._refresher = ProcessSlot(plan.serve_refresher, self._rendezvous, may_wait=may_wait)
        self._refresher_watch = FreezeWatch(self._refresher, REFRESHER)
        #: Worker processes that have been signalled to end; then the token refresher, once it has been.
        self._leaving: list[LeavingProcess] = []
        self._leaving_refresher: LeavingProcess | None = None
        #: Whether all its processes were ready at the same time: then the settings are good.
        self.has_served = False

    def poll(self) -> bool:
        """Starts and restarts processes; False when the settings turn out to be unusable, which no restart can fix."""
        named = [*((slot, "a worker process") for slot in self._slots), (self._refresher, REFRESHER)]
        for slot, name in named:
            exit_code = slot.poll()
            if exit_code == EXIT_MISCONFIGURED and not self.has_served:
                return False
            report_exit(name, exit_code)
        self._refresher_watch.look()
        self.has_served = self.has_served or all(slot.is_ready for slot, _ in named)
        return True

    def retire(self) -> None:
        """Makes the worker processes end after their running requests."""
        self._leave(RETIRE_SIGNAL, self._plan.retire_seconds)

    def stop(self, *, is_urgent: bool = False) -> None:
        """Makes the worker processes end within the drain time, at once if it is urgent; repeatable."""
        self._leave(signal.SIGTERM, 0.0 if is_urgent else self._plan.drain_seconds)

    def _leave(self, signum: int, seconds: float) -> None:
        self._leaving = [LeavingProcess(slot, signum, seconds) for slot in self._slots]

    def has_left(self) -> bool:
        """Whether all processes have ended. Keeps the token refresher alive until the worker processes have."""
        self._leaving = [process for process in self._leaving if not process.poll()]
        if self._leaving:
            report_exit(REFRESHER, self._refresher.poll())
            self._refresher_watch.look()
            return False
        if self._leaving_refresher is None:
            self._leaving_refresher = LeavingProcess(self._refresher, RETIRE_SIGNAL, 0.0)
        if not self._leaving_refresher.poll():
            return False
        self._rendezvous.close()
        return True


def report_exit(name: str, exit_code: int | None) -> None:
    """`exit_code` is None for a process that runs."""
    if exit_code is not None:
        print(f"farm: {name} exited with {exit_code}; restarting it", file=sys.stderr, flush=True)


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
        #: Generations whose processes have been signalled to end.
        self._leaving: list[Generation] = []
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
            self._poll_leaving()
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
            self._leave(self._current, Generation.retire)
            self._current, self._next = self._next, None
            self._plan = self._next_plan
            report_reload()

    def _discard_next(self) -> None:
        if self._next is not None:
            self._leave(self._next, Generation.stop)
            self._next = None

    def _leave(self, generation: Generation, end: Callable[[Generation], None]) -> None:
        end(generation)
        self._leaving.append(generation)

    def _poll_leaving(self) -> None:
        self._leaving = [generation for generation in self._leaving if not generation.has_left()]

    def _stop_all(self) -> None:
        """Stops all processes, retiring ones too, and waits for them; another signal to stop cuts the drain short."""
        self._discard_next()
        self._leaving.append(self._current)
        for generation in self._leaving:
            generation.stop()
        handled = self._stop_signals
        while self._leaving:
            if self._stop_signals > handled:
                handled = self._stop_signals
                for generation in self._leaving:
                    generation.stop(is_urgent=True)
            self._poll_leaving()
            sleep(POLL_SECONDS)
