"""All shared runs of one front: who joins which, where its answer comes from, and what is kept of it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, names
from shared.api_keys.limits import LimitReached, LimitUsage
from shared.errors import ApiError
from shared.observability.counters import Counters
from shared.protocol.messages import Frame
from shared.redis_connection.retry import retry_for
from web.replay.answer_form import AnswerForm
from web.replay.answer_store import AnswerStore, KeptAnswer, NameReused, OtherRun, Share
from web.replay.follower import Follower
from web.replay.good_answer import is_good_answer
from web.replay.other_front_run import OtherFrontRun
from web.replay.run_export import RunExchange
from web.replay.shared_run import KeptBytes, SharedRun
from web.reply.hub import Hub
from web.request import limit_headers
from web.request.log_buffer import RequestLogBuffer
from web.request.pending import WORKER_MARGIN_SECONDS, PendingRequest
from web.request.rendering import NO_TIMEOUT

log = logging.getLogger("farm.web")
#: Seconds between two searches for callers that have stopped reading.
SWEEP_INTERVAL_SECONDS = 2.0
#: Seconds that a claim outlives the deadline of its request: by then its run has ended.
CLAIM_MARGIN_SECONDS = 60.0
RUN_FAILED = ApiError(500, "internal_error", "the farm failed to handle this request", "server_error")
STORE_UNAVAILABLE = ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")
KEY_REUSED = ApiError(
    422,
    "idempotency_key_reused",
    "this Idempotency-Key was used for another request: use a new key for each request",
)
#: Where an answer came from, as `x-farm-cache` says.
MISS, JOINED, HIT = "miss", "joined", "hit"


@dataclass(frozen=True)
class Sharing:
    """How a request shares its answer."""

    #: Those by which it is looked for come in this order.
    shares: tuple[Share, ...]
    #: Whether the answer is wanted although its callers have left.
    drains: bool = False
    #: What the caller asked for, None if all requests that share the answer ask for the same.
    form: AnswerForm | None = None


@dataclass(frozen=True)
class Caller:
    """A caller, and its request as it would be run."""

    pending_request: PendingRequest
    socket: Any
    sharing: Sharing
    #: Enqueues the request.
    submit: Callable[[], object]


@dataclass(frozen=True)
class Joined:
    """A caller's place in a run."""

    follower: Follower
    outcome: str
    #: How much of its limits the caller's key has used; None for the caller whose request is run.
    limit_usage: LimitUsage | None = None


class Runs:
    """The shared runs of one front."""

    def __init__(
        self, redis: Redis, store: AnswerStore, hub: Hub, log_buffer: RequestLogBuffer, counters: Counters
    ) -> None:
        self._store = store
        self._exchange = RunExchange(redis, hub.front_id, self._find_by_id)
        hub.on_message = self._exchange.receive
        self._counters = counters
        self._log_buffer = log_buffer
        self._kept_bytes = KeptBytes()
        #: Name -> the run that can be joined by it.
        self._by_name: dict[str, SharedRun] = {}
        self.followers: set[Follower] = set()
        self._running: set[SharedRun] = set()

    def open(self, caller: Caller) -> Joined:
        """Joins the run of the same request, replays its kept answer, or runs it. Raises ApiError, RedisError."""
        usage: LimitUsage | None = None
        while True:
            run = self._find(caller.sharing)
            if run is None:
                return self._begin(caller)
            run.opened.wait()
            if run.can_be_joined:
                usage = usage or self._count(caller.pending_request)
            if run.can_be_joined:
                return Joined(self._follow(run, caller, run.joined_as), run.joined_as, usage)
            self._withdraw(run)

    def _find(self, sharing: Sharing) -> SharedRun | None:
        """The run that is to be joined. Raises ApiError 422."""
        for share in sharing.shares:
            run = self._by_name.get(share.name)
            if run and run.is_of_other(share):
                raise KEY_REUSED
            if run and share.may_use:
                return run
        return None

    def _begin(self, caller: Caller) -> Joined:
        """Replays the kept answer, or runs the request, while later callers wait for what becomes of it."""
        sharing = caller.sharing
        run = SharedRun(caller.pending_request.request.id, sharing.shares, self._kept_bytes, drains=sharing.drains)
        for share in sharing.shares:
            if share.may_use:
                self._by_name[share.name] = run
        try:
            found = self._claim(run, caller.pending_request)
            if isinstance(found, KeptAnswer):
                return self._replay(run, found, caller)
            if isinstance(found, OtherRun):
                return self._join_other(run, found, caller)
            caller.submit()
            return self._run(run, caller)
        except BaseException:
            self._withdraw(run)
            raise
        finally:
            run.opened.set()

    def _replay(self, run: SharedRun, answer: KeptAnswer, caller: Caller) -> Joined:
        usage = self._count(caller.pending_request)
        run.joined_as, run.is_open = HIT, True
        run.replay(answer.frames)
        self._forget_names(run)
        # A first request with an idempotency key may find the answer to another one; the key stands for it from now on.
        if others := [share for share in run.shares if share.print and share != answer.share]:
            gevent.spawn(self._store_answer, run.id, others, answer.frames)
        return Joined(self._follow(run, caller, HIT), HIT, usage)

    def _run(self, run: SharedRun, caller: Caller) -> Joined:
        run.on_unkept = lambda: self._withdraw(run)
        run.is_open = True
        self._running.add(run)
        self._attach(run, caller.pending_request)
        gevent.spawn(self._feed, run, caller.pending_request)
        return Joined(self._follow(run, caller, MISS), MISS)

    def _attach(self, run: SharedRun, pending_request: PendingRequest) -> None:
        run.cancel = lambda: self._cancel(run, pending_request)

    def _join_other(self, run: SharedRun, other: OtherRun, caller: Caller) -> Joined:
        """Follows the run of another front."""
        usage = self._count(caller.pending_request)
        run.joined_as, run.is_open = JOINED, True
        run.on_unkept = lambda: self._withdraw(run)
        self._running.add(run)
        gevent.spawn(self._feed_from_other, run, other, caller)
        return Joined(self._follow(run, caller, JOINED), JOINED, usage)

    def _feed_from_other(self, run: SharedRun, other: OtherRun, caller: Caller) -> None:
        """Follows the other front's run to its end; runs the request here when that is lost before its first byte."""
        try:
            found: KeptAnswer | OtherRun | None = other
            while isinstance(found, OtherRun) and not run.has_ended:
                is_lost = OtherFrontRun(self._store, self._exchange, run, found).follow(caller.pending_request.request)
                if run.has_ended or not is_lost:
                    return
                found = self._claim(run, caller.pending_request)
            if isinstance(found, KeptAnswer):
                run.put(found.frames)
                return
            caller.submit()
        except ApiError as error:
            run.fail(error)
        except RedisError:
            run.fail(STORE_UNAVAILABLE)
        else:
            self._attach(run, caller.pending_request)
            self._feed(run, caller.pending_request)
        finally:
            run.fail(RUN_FAILED)
            self._withdraw(run)
            run.stop_keeping()
            self._running.discard(run)

    def _find_by_id(self, run_id: str) -> SharedRun | None:
        return next((run for run in self._running if run.id == run_id and run.can_be_joined), None)

    def _claim(self, run: SharedRun, pending_request: PendingRequest) -> KeptAnswer | OtherRun | None:
        seconds = pending_request.request.deadline - clock.now() + CLAIM_MARGIN_SECONDS
        try:
            return retry_for(lambda: self._store.claim(run.id, run.shares, seconds))
        except NameReused:
            raise KEY_REUSED from None

    def _count(self, pending_request: PendingRequest) -> LimitUsage:
        """Counts a request that is not run against its key's requests per minute. Raises ApiError 429."""
        key, queue = pending_request.key, pending_request.services.queue
        try:
            return retry_for(lambda: queue.count_request(key, clock.now()))
        except LimitReached as error:
            raise limit_headers.limit_reached_error(key, error) from None

    def _follow(self, run: SharedRun, caller: Caller, outcome: str) -> Follower:
        request = caller.pending_request.request

        def on_close(follower: Follower) -> None:
            self.followers.discard(follower)
            if outcome != MISS:
                self._log_buffer.record_shared(request, *follower.find_outcome(), end=outcome)

        self._counters.increment("shared_answers", names.configured_pool(request.pool), outcome)
        follower = Follower(run, request, caller.sharing.form, caller.socket, on_close)
        self.followers.add(follower)
        return follower

    def _feed(self, run: SharedRun, pending_request: PendingRequest) -> None:
        """Takes the reply to its end, and keeps the answer."""
        try:
            self._take_reply(run, pending_request)
            self._keep(run, pending_request.request.path.partition("?")[0])
        finally:
            self._withdraw(run)
            run.stop_keeping()
            self._running.discard(run)

    def _take_reply(self, run: SharedRun, pending_request: PendingRequest) -> None:
        try:
            while not run.has_ended:
                run.put(pending_request.wait_for_frames(NO_TIMEOUT))
                run.wait_for_readers()
        except ApiError as error:
            run.fail(error)
        finally:
            # Without effect on a run that has ended.
            run.fail(RUN_FAILED)
            pending_request.close()

    def _keep(self, run: SharedRun, path: str) -> None:
        frames, shares = run.frames, [share for share in run.shares if share.ttl]
        if not shares or not run.is_whole or not is_good_answer(path, frames):
            return
        self._store_answer(run.id, shares, frames)

    def _store_answer(self, run_id: str, shares: Sequence[Share], frames: Sequence[Frame]) -> None:
        try:
            for share in shares:
                retry_for(partial(self._store.keep, share, run_id, frames))
        except RedisError as error:
            log.warning("can't keep an answer: %s", error, extra={"action": "redis_lost"})

    def _cancel(self, run: SharedRun, pending_request: PendingRequest) -> None:
        """Nobody waits for the answer: `_feed` closes the request."""
        self._withdraw(run)
        pending_request.mailbox.abandon()

    def _withdraw(self, run: SharedRun) -> None:
        """Lets nobody join the run any more, here or in other fronts. Idempotent."""
        if forgotten := self._forget_names(run):
            gevent.spawn(self._release, run, forgotten)

    def _forget_names(self, run: SharedRun) -> list[str]:
        forgotten = [share.name for share in run.shares if self._by_name.get(share.name) is run]
        for name in forgotten:
            del self._by_name[name]
        return forgotten

    def _release(self, run: SharedRun, forgotten: list[str]) -> None:
        try:
            self._store.release(run.id, forgotten)
        except RedisError as error:
            log.warning("can't release a run: %s", error, extra={"action": "redis_lost"})

    def run_sweeps(self) -> None:
        """Ends callers that have stopped reading (I7)."""
        while True:
            gevent.sleep(SWEEP_INTERVAL_SECONDS)
            overdue_since = clock.now() - 2 * WORKER_MARGIN_SECONDS
            for follower in list(self.followers):
                if follower.request.deadline < overdue_since:
                    follower.end_overdue()

    def shut_down(self) -> None:
        """Called when the front ends: others may run what it has not ended. Raises RedisError."""
        for run in list(self._running):
            self._store.release(run.id, [share.name for share in run.shares])

    def list_running(self) -> list[SharedRun]:
        return list(self._running)
