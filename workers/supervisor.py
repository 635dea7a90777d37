"""Keeps the worker processes alive: forks them, forks anew one that dies, passes on the signal to stop; no Redis.

The modules are loaded once, here, so a process that died is back in a moment, even on a busy machine. Who follows a
process that died is told its id: it is certain that that one lives no more, so its leases need not run out first.
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

#: Seconds before a process that died young is started again; doubled each time, up to the longest.
RESTART_BACKOFF_SECONDS = 0.5
MAX_RESTART_BACKOFF_SECONDS = 15.0
#: A process that lived so many seconds is started again at once.
STABLE_AFTER_SECONDS = 2.0
#: Seconds that processes get to drain before they are killed.
DRAIN_TIMEOUT_SECONDS = 75.0
#: Exit code for a mistake of configuration, which no restart mends.
EXIT_MISCONFIGURED = 2
POLL_SECONDS = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds that new processes get to come up before those with the old settings are asked to end.
OVERLAP_SECONDS = 1.0
Serve = Callable[["SpawnInfo"], int]

# gevent's own versions would make a hub here, which a fork must not inherit.
sleep = monkey.get_original("time", "sleep")
monotonic = monkey.get_original("time", "monotonic")
fork = monkey.get_original("os", "fork")
waitpid = monkey.get_original("os", "waitpid")


@dataclass(frozen=True)
class SpawnInfo:
    """What a new process is told."""

    #: The id under which it is known in Redis.
    process_id: str
    #: The id of the one in whose place it is, '' for none.
    predecessor: str
    #: Whether it is the first in its place.
    is_first: bool
    #: The process id of the supervisor; when the parent is another, it has died.
    parent_pid: int


class ProcessSlot:
    """The place of one process and when to fill it again."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._pause = RESTART_BACKOFF_SECONDS
        self._start_at = 0.0
        self._started_at = 0.0
        self._key = ""
        self._last = ""
        self.pid = 0

    def poll(self) -> int | None:
        """Fills it when it is time; returns the exit code of a process that has just died, negative for a signal."""
        if not self.pid:
            if monotonic() >= self._start_at:
                self._spawn()
            return None
        code = self.reap()
        if code is not None:
            young = monotonic() - self._started_at < STABLE_AFTER_SECONDS
            self._start_at = monotonic() + (self._pause if young else 0.0)
            self._pause = min(2 * self._pause, MAX_RESTART_BACKOFF_SECONDS) if young else RESTART_BACKOFF_SECONDS
        return code

    def _spawn(self) -> None:
        self._started_at = monotonic()
        self._key = secrets.token_hex(2)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        parent = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            sys.exit(self._serve(SpawnInfo(self._name(os.getpid()), self._last, not self._last, parent)))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._last = self._name(self.pid)

    def _name(self, pid: int) -> str:
        return f"{socket.gethostname()}-{pid}-{self._key}"

    def reap(self) -> int | None:
        """The exit code, once, when the process is over."""
        pid, status = waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def send_signal(self, signum: int) -> None:
        """Signals the process, which is not reaped yet, so its number is its own."""
        if self.pid:
            os.kill(self.pid, signum)


class RetiringProcess:
    """A process with settings of before, on its way out."""

    def __init__(self, slot: ProcessSlot, since: float) -> None:
        self.place = slot
        self._since = since
        self._is_told = False

    def poll(self) -> bool:
        """Asks it to end when the new ones have come, insists when its patience is over; whether it has ended."""
        if not self.place.pid or self.place.reap() is not None:
            return True
        waited = monotonic() - self._since
        if not self._is_told and waited > OVERLAP_SECONDS:
            self._is_told = True
            self.place.send_signal(signal.SIGTERM)
        elif waited > DRAIN_TIMEOUT_SECONDS:
            self.place.send_signal(signal.SIGKILL)
        return False


class Supervisor:
    """Keeps `count` processes alive until it is told to stop; each runs `serve` and ends with what that returns.

    At SIGHUP `renew` tells how to serve from now on, None for no change: new processes come, then the old ones let
    their running requests end.
    """

    def __init__(self, serve: Serve, count: int, renew: Callable[[], Serve | None] = lambda: None) -> None:
        self._slots = [ProcessSlot(serve) for _ in range(count)]
        self._reload = renew
        self._reload_requested = False
        #: Those that are to end, since when by the monotonic clock, and whether they know.
        self._retiring: list[RetiringProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Returns the exit code: 0 after SIGTERM or SIGINT, 1 when a process was misconfigured."""
        for signum in SIGNALS:
            signal.signal(signum, self._handle_signal)
        code = 0
        while not self._stopping:
            self._replace_processes()
            for place in self._slots:
                died = place.poll()
                if died == EXIT_MISCONFIGURED:
                    self._stopping, code = True, 1
                elif died is not None and not self._stopping:
                    print(f"farm: a worker process ended with {died}; starting it again", file=sys.stderr, flush=True)
            sleep(POLL_SECONDS)
        self._terminate_all()
        return code

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self._reload_requested = True
        else:
            self._stopping = True

    def _replace_processes(self) -> None:
        """Puts new processes beside the old ones, and sees the old ones off."""
        if self._reload_requested:
            self._reload_requested = False
            serve = self._reload()
            if serve is not None:
                self._retiring += [RetiringProcess(place, monotonic()) for place in self._slots]
                self._slots = [ProcessSlot(serve) for _ in self._slots]
        self._retiring = [one for one in self._retiring if not one.poll()]

    def _terminate_all(self) -> None:
        """SIGTERM to all, then patience, then SIGKILL."""
        places = [*self._slots, *(one.place for one in self._retiring)]
        for place in places:
            place.send_signal(signal.SIGTERM)
        until = monotonic() + DRAIN_TIMEOUT_SECONDS
        for place in places:
            while place.pid and place.reap() is None:
                if monotonic() > until:
                    place.send_signal(signal.SIGKILL)
                sleep(POLL_SECONDS)
