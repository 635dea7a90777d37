"""Lets a request that gets the answer to another one wait for its API key's requests per minute, as if it were run.

It has no job, so that the front waits in place of shared/protocol/held_requests.lua, which does not know of it.
"""

import time
from weakref import WeakSet

from gevent.event import Event
from redis.exceptions import RedisError

from shared import clock
from shared.api_keys.limits import LimitReached, LimitUsage
from shared.errors import ApiError
from shared.redis_connection.retry import retry_for
from web.request import limit_headers
from web.request.pending import RECHECK_SECONDS, PendingRequest

#: Seconds beyond those after which Redis lets a request through, so that it has not to be asked twice.
MARGIN_SECONDS = 0.01
#: Seconds between two looks whether the front is being stopped.
MAX_WAIT_SECONDS = 1.0
#: Bytes of kept answers that are held in this process for requests that wait.
MAX_WAITING_BYTES = 64 * 1024 * 1024


class LimitTurn:
    """When one request may have its answer."""

    def __init__(self, pending_request: PendingRequest, answer_bytes: int) -> None:
        self.answer_bytes = answer_bytes
        self.key = pending_request.key
        self._request = pending_request
        self._services = pending_request.services
        #: Usage of the key's limits, and requests that are ahead, as of the first `ask`.
        self.usage = LimitUsage()
        self.ahead = 0
        self.is_counted = False
        self._ask_at = 0.0
        self._woken = Event()

    @property
    def seconds_left(self) -> float:
        """Until Redis should be asked again."""
        return max(0.0, self._ask_at - time.monotonic())

    def ask(self, before: int | None = None) -> None:
        """Counts the request if it may be. Raises LimitReached, RedisError.

        `before`: others of this front that wait before it, None when it asks again.
        """
        patience = self._request.gives_up_at - clock.now()
        count = self._services.queue.count_shared(self.key, clock.now(), patience, before)
        if before is not None:
            self.usage, self.ahead = count.limit_usage, count.ahead
        self.is_counted = not count.recheck_seconds
        self._ask_at = time.monotonic() + count.recheck_seconds + MARGIN_SECONDS

    def has_come(self) -> bool:
        """Whether the request is counted, after another look if it is time for one. Raises ApiError if it gives up."""
        if self.is_counted:
            return True
        self._services.shutdown.check()
        if clock.now() >= self._request.gives_up_at:
            raise self._build_timeout()
        if not self.seconds_left:
            try:
                self.ask()
            except RedisError:
                self._ask_at = time.monotonic() + RECHECK_SECONDS
        return self.is_counted

    def _build_timeout(self) -> ApiError:
        try:
            return self._request.build_queue_timeout()
        except RedisError:
            return ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")

    def wait(self, timeout: float) -> None:
        """Waits until `has_come` should be asked again, or somebody wakes it, for `timeout` seconds at most."""
        patience = self._request.gives_up_at - clock.now()
        self._woken.wait(max(0.0, min(timeout, self.seconds_left, patience, MAX_WAIT_SECONDS)))

    def wake(self) -> None:
        self._woken.set()


class LimitTurns:
    """Those of one front."""

    def __init__(self) -> None:
        self._waiting: WeakSet[LimitTurn] = WeakSet()

    def begin(self, pending_request: PendingRequest, answer_bytes: int = 0) -> LimitTurn:
        """Counts the request, or lets it wait. Raises ApiError 429, 503, RedisError.

        `answer_bytes` of memory are taken up while it waits.
        """
        pending_request.services.shutdown.check()
        turn = LimitTurn(pending_request, answer_bytes)
        if not turn.key.rpm:
            turn.is_counted = True
            return turn
        waiting = [each for each in self._waiting if not each.is_counted]
        before = sum(each.key.id == turn.key.id for each in waiting)
        held_bytes = sum(each.answer_bytes for each in waiting) + answer_bytes
        try:
            retry_for(lambda: turn.ask(before))
            if not turn.is_counted and held_bytes > MAX_WAITING_BYTES:
                raise LimitReached("requests", turn.seconds_left, turn.usage)
        except LimitReached as error:
            raise limit_headers.limit_reached_error(turn.key, error) from None
        if not turn.is_counted:
            self._waiting.add(turn)
        return turn
