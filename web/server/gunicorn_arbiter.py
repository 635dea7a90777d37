"""gunicorn's arbiter (its master process) with a reload that loses nothing.

gunicorn stops the old fronts before the new ones can serve, stops altogether if a new one can't start, and handles no
signal until the old ones have ended. Here the new fronts start beside the old ones, which retire once all new ones are
ready; if one of the new ones ends before that, the old ones stay.
"""

import signal
import time
from typing import Any, Protocol

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from shared.errors import FarmError
from shared.reload_report import report_reload
from web.server.gunicorn_worker import RETIRE_SIGNAL

#: Seconds before a front that could not start is started again.
RESTART_PAUSE_SECONDS = 1.0
#: Seconds beyond the drain time before a front is killed.
KILL_GRACE_SECONDS = 10
#: Seconds between two looks whether new fronts are ready.
POLL_SECONDS = 0.1


class ReloadableSettings(Protocol):
    """The settings with which new fronts start."""

    @property
    def front_count(self) -> int: ...
    @property
    def drain_seconds(self) -> float: ...
    def load(self) -> None:
        """Loads them again. Raises FarmError and keeps the old ones if they are invalid."""

    def revert(self) -> None:
        """Returns to those before the last `load`."""


class FarmArbiter(Arbiter):  # type: ignore[misc]
    """The arbiter of the fronts; `adopt` turns gunicorn's own into one."""

    _settings: ReloadableSettings
    #: Fronts that are to take over: process id -> worker.
    _next: dict[int, Any]
    #: Fronts that end after their running requests.
    _retiring: set[int]
    #: Fronts that were to take over: process id -> when to kill it, by the monotonic clock.
    _discarded: dict[int, float]
    _has_served: bool
    _respawn_at: float

    def configure(self, settings: ReloadableSettings) -> None:
        """Takes the place of `__init__`; see `adopt`."""
        self._settings = settings
        self._next, self._retiring, self._discarded = {}, set(), {}
        self._has_served, self._respawn_at = False, 0.0
        self._apply_settings()

    def _apply_settings(self) -> None:
        self.num_workers = self._settings.front_count
        self.cfg.set("graceful_timeout", int(self._settings.drain_seconds) + KILL_GRACE_SECONDS)

    def handle_hup(self) -> None:
        """gunicorn: SIGHUP. Starts new fronts; `manage_workers` lets them take over."""
        self._discard_next()
        try:
            self._settings.load()
        except FarmError as error:
            report_reload(str(error))
            return
        self.log.reopen_files()
        for _ in range(self._settings.front_count):
            pid = self.spawn_worker()
            self._next[pid] = self.WORKERS[pid]

    def manage_workers(self) -> None:
        """gunicorn: called about once a second and after each signal; starts and stops fronts as needed."""
        self._advance_reload()
        current = self._current()
        if len(current) < self.num_workers and time.monotonic() >= self._respawn_at:
            for _ in range(self.num_workers - len(current)):
                self.spawn_worker()
        for pid in current[: max(0, len(current) - self.num_workers)]:
            self.kill_worker(pid, signal.SIGTERM)
        self._has_served = self._has_served or any(self.WORKERS[pid].ready.is_set for pid in self._current())

    def _current(self) -> list[int]:
        """The fronts that serve, or are about to, the oldest first."""
        others = {*self._next, *self._retiring, *self._discarded}
        return sorted(set(self.WORKERS) - others, key=lambda pid: self.WORKERS[pid].age)

    def _advance_reload(self) -> None:
        """Retires the old fronts once the new ones are ready; drops the new ones if one of them has ended."""
        self._retiring &= set(self.WORKERS)
        self._kill_discarded()
        if not self._next:
            return
        if not set(self._next) <= set(self.WORKERS):
            self._discard_next()
            report_reload("a front can't start with them (see the lines above)")
        elif all(worker.ready.is_set for worker in self._next.values()):
            retiring, self._next = self._current(), {}
            self._retiring.update(retiring)
            self._apply_settings()
            for pid in retiring:
                self.kill_worker(pid, RETIRE_SIGNAL)
            report_reload()

    def _discard_next(self) -> None:
        """Stops fronts that are not ready yet, and returns to the settings before them."""
        if not self._next:
            return
        discarded, self._next = self._next, {}
        self._settings.revert()
        for pid in set(discarded) & set(self.WORKERS):
            self._discarded[pid] = time.monotonic() + self.cfg.graceful_timeout
            self.kill_worker(pid, signal.SIGTERM)

    def _kill_discarded(self) -> None:
        """Kills those that have not stopped: a signal that comes before a front can handle it is lost."""
        self._discarded = {pid: kill_at for pid, kill_at in self._discarded.items() if pid in self.WORKERS}
        for pid, kill_at in self._discarded.items():
            if time.monotonic() > kill_at:
                self.kill_worker(pid, signal.SIGKILL)

    def reap_workers(self) -> None:
        """gunicorn: removes the fronts that have ended; once fronts have served, one that can't start ends nothing."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._has_served:
                raise
            self._respawn_at = time.monotonic() + RESTART_PAUSE_SECONDS

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """gunicorn: waits less while new fronts start."""
        return list(super().wait_for_signals(POLL_SECONDS if self._next else timeout))


def adopt(arbiter: Arbiter, settings: ReloadableSettings) -> None:
    """Turns gunicorn's arbiter into the farm's; for the hook `on_starting`. gunicorn has no setting for its class."""
    arbiter.__class__ = FarmArbiter
    arbiter.configure(settings)
