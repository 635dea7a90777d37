"""Forks the worker processes, restarts those that die, and forwards the stop signal. No Redis.

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

#: Seconds before a process that died young is restarted; doubled each time, up to the maximum.
RESTART_BACKOFF_SECONDS = 0.5
MAX_RESTART_BACKOFF_SECONDS = 15.0
#: Seconds of uptime after which a process that dies is restarted at once.
STABLE_AFTER_SECONDS = 2.0
#: Seconds that processes have to drain before they are killed.
DRAIN_TIMEOUT_SECONDS = 75.0
#: Exit code for a configuration error, which no restart can fix.
EXIT_MISCONFIGURED = 2
POLL_SECONDS = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds that new processes have to come up before those with the old settings get SIGTERM.
OVERLAP_SECONDS = 1.0
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


class ProcessSlot:
    """One process and its restart backoff."""

    def __init__(self, serve: Serve) -> None:
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

    def _spawn(self) -> None:
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
            predecessor = self._last_process_id
            sys.exit(self._serve(SpawnInfo(self._process_id(os.getpid()), predecessor, not predecessor, parent_pid)))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._last_process_id = self._process_id(self.pid)

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


class RetiringProcess:
    """A process with the old settings, which is to end."""

    def __init__(self, slot: ProcessSlot, retired_at: float) -> None:
        self.slot = slot
        #: By the monotonic clock.
        self._retired_at = retired_at
        self._sigterm_sent = False

    def poll(self) -> bool:
        """Sends SIGTERM once the new processes had time to come up, later SIGKILL; returns whether it has ended."""
        if not self.slot.pid or self.slot.reap() is not None:
            return True
        elapsed = monotonic() - self._retired_at
        if not self._sigterm_sent and elapsed > OVERLAP_SECONDS:
            self._sigterm_sent = True
            self.slot.send_signal(signal.SIGTERM)
        elif elapsed > DRAIN_TIMEOUT_SECONDS:
            self.slot.send_signal(signal.SIGKILL)
        return False


class Supervisor:
    """Keeps `count` processes alive until it gets SIGTERM or SIGINT; each exits with what `serve` returns.

    On SIGHUP it calls `reload`, which returns how to serve from now on, or None for no change. New processes start
    first; then the old ones drain.
    """

    def __init__(self, serve: Serve, count: int, reload: Callable[[], Serve | None] = lambda: None) -> None:
        self._slots = [ProcessSlot(serve) for _ in range(count)]
        self._reload = reload
        self._reload_requested = False
        self._retiring: list[RetiringProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Returns the exit code: 0 after SIGTERM or SIGINT, 1 when a process was misconfigured."""
        for signum in SIGNALS:
            signal.signal(signum, self._handle_signal)
        exit_code = 0
        while not self._stopping:
            self._replace_processes()
            for slot in self._slots:
                slot_exit_code = slot.poll()
                if slot_exit_code == EXIT_MISCONFIGURED:
                    self._stopping, exit_code = True, 1
                elif slot_exit_code is not None and not self._stopping:
                    message = f"farm: a worker process exited with {slot_exit_code}; restarting it"
                    print(message, file=sys.stderr, flush=True)
            sleep(POLL_SECONDS)
        self._terminate_all()
        return exit_code

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self._reload_requested = True
        else:
            self._stopping = True

    def _replace_processes(self) -> None:
        """After a reload request starts new processes beside the old ones; polls those that are retiring."""
        if self._reload_requested:
            self._reload_requested = False
            serve = self._reload()
            if serve is not None:
                self._retiring += [RetiringProcess(slot, monotonic()) for slot in self._slots]
                self._slots = [ProcessSlot(serve) for _ in self._slots]
        self._retiring = [process for process in self._retiring if not process.poll()]

    def _terminate_all(self) -> None:
        """Sends SIGTERM to all, and SIGKILL to those that have not drained in time."""
        slots = [*self._slots, *(process.slot for process in self._retiring)]
        for slot in slots:
            slot.send_signal(signal.SIGTERM)
        give_up_at = monotonic() + DRAIN_TIMEOUT_SECONDS
        for slot in slots:
            while slot.pid and slot.reap() is None:
                if monotonic() > give_up_at:
                    slot.send_signal(signal.SIGKILL)
                sleep(POLL_SECONDS)
