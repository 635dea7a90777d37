"""Finds out that a forked process is frozen: resumes it, and kills it when that doesn't help. No Redis."""

import signal
import sys

from gevent import monkey

from workers.process_slot import ProcessSlot

#: Seconds between two beats of a process that is well.
BEAT_SECONDS = 0.25
#: Seconds without a beat before the process gets SIGCONT, which does no harm, and SIGKILL, which loses what it holds.
RESUME_AFTER_SECONDS, KILL_AFTER_SECONDS = 1.5, 5.0
#: What one look adds to the silence at most, so that a machine that has stood still as a whole isn't held against it.
MAX_STEP_SECONDS = 0.1

# gevent's version would create a hub in the supervisor, which a fork must not inherit.
monotonic = monkey.get_original("time", "monotonic")


class FreezeWatch:
    """Watches one process of a slot after another."""

    def __init__(self, slot: ProcessSlot, name: str) -> None:
        """`name` is for the log."""
        self._slot = slot
        self._name = name
        #: The pid and the count of its beats at the last look.
        self._seen = (0, 0)
        self._looked_at = monotonic()
        #: Seconds since the last beat, in which this process has run as well.
        self._silence = 0.0

    def look(self) -> None:
        """To be called often, while the process is meant to run."""
        now = monotonic()
        step, self._looked_at = min(now - self._looked_at, MAX_STEP_SECONDS), now
        seen = self._slot.pid, self._slot.beat_count
        if not self._slot.pid or seen != self._seen:
            self._seen, self._silence = seen, 0.0
            return
        before, self._silence = self._silence, self._silence + step
        if before < RESUME_AFTER_SECONDS <= self._silence:
            # It may have been stopped by a signal; then it still has the answers that a kill would lose.
            self._signal(signal.SIGCONT, "resuming it (SIGCONT)")
        if before < KILL_AFTER_SECONDS <= self._silence:
            self._signal(signal.SIGKILL, "killing it (SIGKILL)")

    def _signal(self, signum: int, what: str) -> None:
        print(f"farm: {self._name} is frozen for {self._silence:.1f} s; {what}", file=sys.stderr, flush=True)
        self._slot.send_signal(signum)
