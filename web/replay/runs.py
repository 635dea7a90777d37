"""All shared runs of one front: who joins which, and what becomes of a request that nobody has asked yet."""

import gevent
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.errors import ApiError
from shared.observability.counters import Counters
from shared.protocol.messages import Frame
from web.replay.answer_keeper import AnswerKeeper
from web.replay.answers.answer_store import AnswerStore, KeptAnswer, OtherRun, Share
from web.replay.answers.free_answer import build_free_answer
from web.replay.caller import HIT, JOINED, MISS, Caller, Joined
from web.replay.followers import Followers
from web.replay.limit_turn import LimitTurn, LimitTurns
from web.replay.run_export import RunExchange
from web.replay.run_registry import RunRegistry
from web.replay.run_source import NOT_CACHED, RunSource
from web.replay.shared_run import KeptBytes, SharedRun
from web.reply.hub import Hub
from web.request.log_buffer import RequestLogBuffer


class Runs:
    """The shared runs of one front."""

    def __init__(
        self, redis: Redis, store: AnswerStore, hub: Hub, log_buffer: RequestLogBuffer, counters: Counters
    ) -> None:
        self.followers = Followers(log_buffer, counters)
        self._registry = RunRegistry(store)
        self._keeper = AnswerKeeper(store)
        exchange = RunExchange(redis, hub.front_id, self._registry)
        hub.on_message = exchange.receive
        self._source = RunSource(self._registry, self._keeper, store, exchange)
        self._kept_bytes = KeptBytes()
        self._turns = LimitTurns()

    def open(self, caller: Caller) -> Joined:
        """Joins the run of the same request, replays its kept answer, or runs it. Raises ApiError, RedisError.

        The caller closes its follower. Killing the greenlet while this waits leaves nothing behind.
        """
        turn: LimitTurn | None = None
        while True:
            run = self._registry.find(caller.sharing)
            if run is None:
                return self._begin(caller, turn)
            run.opened.wait()
            if run.lost_store:
                # Each would wait for Redis in turn.
                raise RedisConnectionError(str(run.lost_store))
            if run.can_be_joined:
                turn = turn or self._turns.begin(caller.pending_request)
            found = self._adopt(run, caller) if run.can_be_joined else None
            if found:
                return self._go_on(self._build_run(caller), found, caller, turn)
            if run.can_be_joined:
                return self._follow(run, caller, HIT if run.is_whole else JOINED, turn)
            self._registry.withdraw(run)

    def _adopt(self, run: SharedRun, caller: Caller) -> KeptAnswer | OtherRun | None:
        """Lets the run of another request stand for the caller's idempotency key, so that its retry finds the answer.

        Returns what the key stands for already. Raises ApiError 422, RedisError.
        """
        shares = run.list_foreign_keys(caller.sharing.shares)
        found = self._registry.claim(run, caller.pending_request.request, shares) if shares else None
        if shares and not found and run.is_whole:
            gevent.spawn(self._keep_for, run, shares, run.frames)
        elif shares and not found:
            run.adopt(shares)
            self._registry.add(run)
        return found

    def _keep_for(self, run: SharedRun, shares: list[Share], frames: list[Frame]) -> None:
        """Keeps an answer for idempotency keys that came when it had ended: for them it is free."""
        self._keeper.store(run.id, shares, frames if run.is_free else build_free_answer(frames))
        self._registry.release(run, [share.name for share in shares])

    def _build_run(self, caller: Caller) -> SharedRun:
        sharing = caller.sharing
        return SharedRun(caller.pending_request.request.id, sharing.shares, self._kept_bytes, drains=sharing.drains)

    def _follow(self, run: SharedRun, caller: Caller, outcome: str, turn: LimitTurn | None = None) -> Joined:
        return Joined(self.followers.add(run, caller, outcome, turn), outcome, turn)

    def _begin(self, caller: Caller, turn: LimitTurn | None) -> Joined:
        """Replays the kept answer, or runs the request, while later callers wait for what becomes of it."""
        run = self._build_run(caller)
        self._registry.add(run)
        try:
            if found := self._registry.claim(run, caller.pending_request.request):
                return self._go_on(run, found, caller, turn)
            if caller.sharing.only_if_cached:
                raise NOT_CACHED
            caller.submit()
            return self._run(run, caller)
        except BaseException as error:
            run.lost_store = error if isinstance(error, RedisError) else None
            self._registry.withdraw(run)
            raise
        finally:
            run.opened.set()

    def _go_on(self, run: SharedRun, found: KeptAnswer | OtherRun, caller: Caller, turn: LimitTurn | None) -> Joined:
        if isinstance(found, KeptAnswer):
            return self._replay(run, found, caller, turn)
        return self._join_other(run, found, caller, turn)

    def _replay(self, run: SharedRun, answer: KeptAnswer, caller: Caller, turn: LimitTurn | None) -> Joined:
        size = sum(len(frame.payload) for frame in answer.frames)
        turn = turn or self._turns.begin(caller.pending_request, size)
        run.is_free = not answer.share.print
        frames = build_free_answer(answer.frames) if run.is_free else answer.frames
        run.is_open = True
        run.replay(frames)
        self._registry.forget(run)
        # A first request with an idempotency key may find the answer to another one; the key stands for it from now on.
        if others := [share for share in run.shares if share.print and share != answer.share]:
            gevent.spawn(self._keeper.store, run.id, others, frames)
        return self._follow(run, caller, HIT, turn)

    def _run(self, run: SharedRun, caller: Caller) -> Joined:
        self._open(run)
        joined = self._follow(run, caller, MISS)
        self._source.attach(run, caller.pending_request)
        gevent.spawn(self._source.feed, run, caller.pending_request)
        return joined

    def _join_other(self, run: SharedRun, other: OtherRun, caller: Caller, turn: LimitTurn | None) -> Joined:
        """Follows the run of another front."""
        turn = turn or self._turns.begin(caller.pending_request)
        others = [share for share in run.shares if share.print and share != other.share]
        if others and not caller.sharing.only_if_cached:
            self._registry.claim(run, caller.pending_request.request, others)
        self._open(run)
        # Who joined a caller that wants nothing run would get nothing either, if the other run is lost.
        run.is_open = not caller.sharing.only_if_cached
        gevent.spawn(self._source.feed_from_other, run, other, caller)
        return self._follow(run, caller, JOINED, turn)

    def _open(self, run: SharedRun) -> None:
        """Others may join the run from now on, until it has become too much to keep."""
        run.on_unkept = lambda: self._registry.withdraw(run)
        run.is_open = True
        self._registry.begin(run)

    def end_all(self, error: ApiError) -> None:
        """Ends the answers that come from other fronts; those that come from workers end with their requests."""
        for run in self.list_running():
            if not run.has_job:
                run.fail(error)

    def shut_down(self) -> None:
        """Called when the front ends. Raises RedisError."""
        self._registry.release_all()

    def list_running(self) -> list[SharedRun]:
        return self._registry.list_running()
