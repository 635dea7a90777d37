"""Feeds shared runs to their end: from the workers' reply, or from the run of another front."""

from redis.exceptions import RedisError

from shared.errors import ApiError
from web.replay.answer_keeper import AnswerKeeper
from web.replay.answers.answer_store import AnswerStore, KeptAnswer, OtherRun
from web.replay.caller import Caller
from web.replay.other_front_run import OtherFrontRun
from web.replay.run_export import RunExchange
from web.replay.run_registry import RunRegistry
from web.replay.shared_run import SharedRun
from web.request.pending import PendingRequest
from web.request.rendering import NO_TIMEOUT

#: RFC 9111 section 5.2.1.7.
NOT_CACHED = ApiError(
    504,
    "not_cached",
    "no answer to this request is kept, and `cache-control: only-if-cached` asks for no other",
    headers={"x-should-retry": "false"},
)
RUN_FAILED = ApiError(500, "internal_error", "the farm failed to handle this request", "server_error")
STORE_UNAVAILABLE = ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")


class RunSource:
    """Each run is fed in a greenlet of its own."""

    def __init__(self, registry: RunRegistry, keeper: AnswerKeeper, store: AnswerStore, exchange: RunExchange) -> None:
        self._registry = registry
        self._keeper = keeper
        self._store = store
        self._exchange = exchange

    def attach(self, run: SharedRun, pending_request: PendingRequest) -> None:
        """The run is that of the request, which has been enqueued: it is cancelled once nobody wants it any more.

        That may be now, as its callers may have left while it was enqueued.
        """

        def cancel() -> None:
            self._registry.withdraw(run)
            # `feed` closes the request.
            pending_request.mailbox.abandon()

        run.has_job = True
        run.attach_source(cancel)

    def feed(self, run: SharedRun, pending_request: PendingRequest) -> None:
        """Takes the reply to its end, and keeps the answer."""
        try:
            take_reply(run, pending_request)
            self._keeper.keep(run, path_of(pending_request))
        finally:
            self._registry.end(run)

    def feed_from_other(self, run: SharedRun, other: OtherRun, caller: Caller) -> None:
        """Follows the other front's run to its end; runs the request here when that is lost before its first byte."""
        try:
            found: KeptAnswer | OtherRun | None = other
            while isinstance(found, OtherRun) and not run.has_ended:
                is_lost = OtherFrontRun(self._store, self._exchange, run, found).follow(caller.pending_request.request)
                if run.has_ended or not is_lost:
                    self._keeper.keep(run, path_of(caller.pending_request), only_keys=True)
                    return
                found = self._registry.claim(run, caller.pending_request.request)
            if found is None and caller.sharing.only_if_cached:
                raise NOT_CACHED
            if isinstance(found, KeptAnswer):
                run.put(found.frames)
                self._keeper.keep(run, path_of(caller.pending_request), only_keys=True)
                return
            caller.submit()
        except ApiError as error:
            run.fail(error)
        except RedisError:
            run.fail(STORE_UNAVAILABLE)
        else:
            self.attach(run, caller.pending_request)
            self.feed(run, caller.pending_request)
        finally:
            run.fail(RUN_FAILED)
            self._registry.end(run)


def path_of(pending_request: PendingRequest) -> str:
    """Below /v1, without its query."""
    return pending_request.request.path.partition("?")[0]


def take_reply(run: SharedRun, pending_request: PendingRequest) -> None:
    """Takes all frames of a request that has been enqueued, and closes it."""
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
