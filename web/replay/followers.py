"""The callers of all shared runs of one front."""

from collections.abc import Iterator
from dataclasses import replace

import gevent

from shared import clock, names
from shared.observability.counters import Counters
from web.replay.caller import HIT, MISS, Caller
from web.replay.follower import Follower
from web.replay.limit_turn import LimitTurn
from web.replay.shared_run import SharedRun
from web.request.log_buffer import RequestLogBuffer
from web.request.pending import WORKER_MARGIN_SECONDS

#: Seconds between two searches for callers that have stopped reading.
SWEEP_INTERVAL_SECONDS = 2.0


class Followers:
    """Those that have neither got their answer nor left."""

    def __init__(self, log_buffer: RequestLogBuffer, counters: Counters) -> None:
        self._log_buffer = log_buffer
        self._counters = counters
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._followers)

    def __iter__(self) -> Iterator[Follower]:
        return iter(list(self._followers))

    def add(self, run: SharedRun, caller: Caller, outcome: str, turn: LimitTurn | None) -> Follower:
        """The caller follows the run from its first frame."""
        form = caller.sharing.form
        if form:
            is_free = outcome == HIT and not (run.is_free or run.is_repeated_by(caller.sharing.shares))
            form = replace(form, is_free=is_free, is_own=outcome == MISS)
        request = caller.pending_request.request

        def on_close(follower: Follower) -> None:
            self._followers.discard(follower)
            if follower.refusal:
                self._log_buffer.record_ended(request, follower.refusal)
            elif not (run.has_job and run.id == request.id):
                self._log_buffer.record_shared(request, *follower.find_outcome(), end=outcome)

        self._counters.increment("shared_answers", names.configured_pool(request.pool), outcome)
        follower = Follower(run, request, form, caller.socket, on_close, turn)
        self._followers.add(follower)
        return follower

    def run_sweeps(self) -> None:
        """Ends callers that have stopped reading (I7)."""
        while True:
            gevent.sleep(SWEEP_INTERVAL_SECONDS)
            overdue_since = clock.now() - 2 * WORKER_MARGIN_SECONDS
            for follower in self:
                if follower.request.deadline < overdue_since:
                    follower.end_overdue()
