"""Forks the worker processes, restarts those that die, replaces all of them at a reload, stops them. No Redis.

The modules are loaded once, in the supervisor, so a forked process is up at once even on a busy machine. A process that
replaces a dead one gets the dead one's id: it may reclaim its leases without waiting for them to expire.
"""

import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from gevent import monkey

from shared.ready_flag import ReadyFlag
from shared.reload_report import report_reload

#: Seconds before a process that died young is restarted; doubled each time, up to the maximum.
RESTART_BACKOFF_SECONDS = 0.5
MAX_RESTART_BACKOFF_SECONDS = 15.0
#: Seconds of uptime after which a process that dies is restarted at once.
STABLE_AFTER_SECONDS = 2.0
#: Seconds that a process gets beyond its drain time before it is killed: for a token refresh in flight, and its frames.
KILL_GRACE_SECONDS = 45.0
#: Exit code for a configuration error, which no restart can fix.
EXIT_MISCONFIGURED = 2
POLL_SECONDS = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Makes a process end once its running requests have ended, however long they take. SIGTERM gives them the drain time.
RETIRE_SIGNAL = signal.SIGUSR1
Serve = Callable[["SpawnInfo"], int]

# gevent's versions would create a hub in the supervisor, which a fork must not inherit.
sleep = monkey.get_original("time", "sleep")
monotonic = monkey.get_original("time", "monotonic")
fork = monkey.get_original("os", "fork")
waitpid = monkey.get_original("os", "waitpid")


@dataclass(frozen=True)
class SpawnInfo:
    """What the supervisor tells a new process."""

    #: The process's id in Redis.
    process_id: str
    #: The id of the dead process that it replaces, '' for none.
    predecessor: str
    #: Whether it is the first in its slot.
    is_first: bool
    #: The supervisor's pid; a process whose parent is another is an orphan.
    parent_pid: int
    #: Whether other processes serve meanwhile or have served, so that an absent Redis is waited for.
    may_wait: bool
    #: To be set once the process can serve.
    ready: ReadyFlag


@dataclass(frozen=True)
class ProcessPlan:
    """How to run the worker processes with certain settings."""

    #: Runs in each process; returns its exit code.
    serve: Serve
    count: int
    #: Seconds that running requests get after SIGTERM, and after RETIRE_SIGNAL.
    drain_seconds: float
    retire_seconds: float


class ProcessSlot:
    """One process and its restart backoff."""

    def __init__(self, serve: Serve, *, may_wait: bool) -> None:
        self._may_wait = may_wait
        self._ready = ReadyFlag()
        self._serve = serve
        self._backoff = RESTART_BACKOFF_SECONDS
        self._start_at = 0.0
        self._started_at = 0.0
        #: Makes the id of a process unique, because the kernel reuses pids.
        self._nonce = ""
        self._last_process_id = ""
        self.pid = 0

    def poll(self) -> int | None:
        """Starts the process when it is due; returns its exit code once it has died, negative for a signal."""
        if not self.pid:
            if monotonic() >= self._start_at:
                self._spawn()
            return None
        exit_code = self.reap()
        if exit_code is not None:
            died_young = monotonic() - self._started_at < STABLE_AFTER_SECONDS
            self._start_at = monotonic() + (self._backoff if died_young else 0.0)
            self._backoff = (
                min(2 * self._backoff, MAX_RESTART_BACKOFF_SECONDS) if died_young else RESTART_BACKOFF_SECONDS
            )
        return exit_code

    @property
    def is_ready(self) -> bool:
        """Whether the running process has reported that it can serve."""
        return bool(self.pid) and self._ready.is_set

    def _spawn(self) -> None:
        self._ready = ReadyFlag()
        self._started_at = monotonic()
        self._nonce = secrets.token_hex(2)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        parent_pid = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            sys.exit(self._serve(self._build_spawn_info(parent_pid)))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._last_process_id = self._process_id(self.pid)

    def _build_spawn_info(self, parent_pid: int) -> SpawnInfo:
        predecessor = self._last_process_id
        return SpawnInfo(
            process_id=self._process_id(os.getpid()),
            predecessor=predecessor,
            is_first=not predecessor,
            parent_pid=parent_pid,
            may_wait=self._may_wait or bool(predecessor),
            ready=self._ready,
        )

    def _process_id(self, pid: int) -> str:
        return f"{socket.gethostname()}-{pid}-{self._nonce}"

    def reap(self) -> int | None:
        """Returns the exit code once, after the process has ended."""
        pid, status = waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def send_signal(self, signum: int) -> None:
        """Signals the process; its pid cannot have been reused, because it is not reaped yet."""
        if self.pid:
            os.kill(self.pid, signum)


class LeavingProcess:
    """A process that has been signalled to end, and is killed when it takes too long."""

    def __init__(self, slot: ProcessSlot, signum: int, seconds: float) -> None:
        """`seconds` is how long its running requests may take."""
        self.slot = slot
        self._kill_at = monotonic() + seconds + KILL_GRACE_SECONDS
        slot.send_signal(signum)

    def poll(self) -> bool:
        """Sends SIGKILL when it is due; returns whether the process has ended."""
        if not self.slot.pid or self.slot.reap() is not None:
            return True
        if monotonic() > self._kill_at:
            self.slot.send_signal(signal.SIGKILL)
        return False


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
        for signum in SIGNALS:
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
