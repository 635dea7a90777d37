"""One forked worker process: started, restarted with backoff, signalled, reaped."""

import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent import monkey

from shared.heartbeat import Heartbeat
from shared.ready_flag import ReadyFlag
from workers.refresher.rendezvous import Rendezvous

#: Exit code of a process for a configuration error, which no restart can fix.
EXIT_MISCONFIGURED = 2
#: Seconds before a process that died young is restarted; doubled each time, up to the maximum.
RESTART_BACKOFF_SECONDS = 0.5
MAX_RESTART_BACKOFF_SECONDS = 15.0
#: Seconds of uptime after which a process that dies is restarted at once.
STABLE_AFTER_SECONDS = 2.0
#: Seconds that a process gets beyond its drain time before it is killed: for a token refresh in flight, and its frames.
KILL_GRACE_SECONDS = 45.0
#: Signals that the supervisor handles, which a fork must not inherit.
SUPERVISOR_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Makes a process end once its running requests have ended, however long they take. SIGTERM gives them the drain time.
RETIRE_SIGNAL = signal.SIGUSR1
Serve = Callable[["SpawnInfo"], int]

# gevent's versions would create a hub in the supervisor, which a fork must not inherit.
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
    #: Where worker processes and token refresher meet.
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    #: To be beaten by a process that is watched (workers/freeze_watch.py).
    heartbeat: Heartbeat = field(default_factory=Heartbeat)


class ProcessSlot:
    """One process and its restart backoff."""

    def __init__(self, serve: Serve, rendezvous: Rendezvous, *, may_wait: bool) -> None:
        self._may_wait = may_wait
        self._rendezvous = rendezvous
        self._ready = ReadyFlag()
        self._heartbeat = Heartbeat()
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

    @property
    def beat_count(self) -> int:
        """See Heartbeat.count."""
        return self._heartbeat.count

    def _spawn(self) -> None:
        self._ready = ReadyFlag()
        self._started_at = monotonic()
        self._nonce = secrets.token_hex(2)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISOR_SIGNALS)
        parent_pid = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            for signum in SUPERVISOR_SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
            sys.exit(self._serve(self._build_spawn_info(parent_pid)))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
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
            rendezvous=self._rendezvous,
            heartbeat=self._heartbeat,
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
