"""Who may join the runs of one front: its own table of them, and their claims, which tell the other fronts."""

import logging
from collections.abc import Sequence

import gevent
from redis.exceptions import RedisError

from shared import clock
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from web.replay.answers.answer_store import AnswerStore, KeptAnswer, NameReused, OtherRun, Share
from web.replay.idempotency_key import KEY_REUSED
from web.replay.shared_run import SharedRun
from web.replay.sharing import Sharing

log = logging.getLogger("farm.web")
#: Seconds that a claim outlives the deadline of its request: by then its run has ended.
CLAIM_MARGIN_SECONDS = 60.0


class RunRegistry:
    """The runs of one front, from their first caller to their last frame."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        #: Name -> the run that can be joined by it.
        self._by_name: dict[str, SharedRun] = {}
        self._running: set[SharedRun] = set()

    def find(self, sharing: Sharing) -> SharedRun | None:
        """The run that is to be joined. Raises ApiError 422."""
        for share in sharing.shares:
            run = self._by_name.get(share.name)
            if run and run.is_of_other(share):
                raise KEY_REUSED
            if run and share.may_use:
                return run
        return None

    def find_by_id(self, run_id: str) -> SharedRun | None:
        """The run with that id: one that runs, or can be found and has not begun."""
        return next((run for run in (*self._running, *self._by_name.values()) if run.id == run_id), None)

    def disclaim(self, run_id: str, name: str) -> None:
        """Gives up a claim that Redis still has of a run that is over: it may have lost the release in a crash."""
        gevent.spawn(self._release, run_id, [name])

    def add(self, run: SharedRun) -> None:
        """Later callers of this front find the run."""
        for share in run.shares:
            if share.may_join:
                self._by_name[share.name] = run

    def claim(
        self, run: SharedRun, request: RelayRequest, shares: Sequence[Share] = ()
    ) -> KeptAnswer | OtherRun | None:
        """Finds the answer or who runs the request; None if this front may run it. Raises ApiError 422, RedisError.

        `shares`: those to look for and claim, by default all of the run.
        """
        seconds = request.deadline - clock.now() + CLAIM_MARGIN_SECONDS
        try:
            return retry_for(lambda: self._store.claim(run.id, shares or run.shares, seconds))
        except NameReused:
            raise KEY_REUSED from None

    def begin(self, run: SharedRun) -> None:
        self._running.add(run)

    def end(self, run: SharedRun) -> None:
        """The run has ended here; it counts as running until other fronts can read all of it."""
        names = self.forget(run)
        run.stop_keeping()
        gevent.spawn(self._end, run, names)

    def _end(self, run: SharedRun, names: Sequence[str]) -> None:
        try:
            self.release(run, names)
        finally:
            self._running.discard(run)

    def withdraw(self, run: SharedRun) -> None:
        """Lets nobody join the run any more, here or in other fronts. Idempotent."""
        if forgotten := self.forget(run):
            gevent.spawn(self.release, run, forgotten)

    def forget(self, run: SharedRun) -> list[str]:
        """Later callers of this front do not find the run any more; returns the names by which they did."""
        forgotten = [share.name for share in run.shares if self._by_name.get(share.name) is run]
        for name in forgotten:
            del self._by_name[name]
        return forgotten

    def release(self, run: SharedRun, names: Sequence[str]) -> None:
        """Gives up the run's claims of these names."""
        # Followers in other fronts take a released run that they have not read to its end for lost.
        run.exported.wait()
        self._release(run.id, names)

    def _release(self, run_id: str, names: Sequence[str]) -> None:
        try:
            self._store.release(run_id, names)
        except RedisError as error:
            log.warning("can't release a run: %s", error, extra={"action": "redis_lost"})

    def release_all(self) -> None:
        """Lets other fronts run what this one has not ended. Raises RedisError."""
        for run in list(self._running):
            self._store.release(run.id, [share.name for share in run.shares])

    def list_running(self) -> list[SharedRun]:
        return list(self._running)
