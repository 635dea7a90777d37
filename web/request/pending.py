"""A relay request from its submission to its last frame: waits, times out, cancels.

1. The reply channel is open before the job is enqueued.
2. The first frame decides the status.
3. However the request ends, its mailbox is closed, and an unfinished job is withdrawn or stopped.
"""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage, encode_demand
from shared.credentials.pool_rest import PoolRest
from shared.errors import ApiError
from shared.protocol.large_body import LargeBody
from shared.protocol.messages import Frame, RelayRequest
from shared.protocol.relay_queue import Admission, QueueFull, RelayQueue
from shared.redis_connection.retry import retry_for
from web.reply.hub import Hub
from web.reply.mailbox import Mailbox
from web.request import limit_headers
from web.request.capacity.availability import Availability
from web.request.capacity.interactive_load import InteractiveLoad
from web.request.capacity.overload import Overload
from web.request.log_buffer import RequestLogBuffer
from web.request.reply_frames import FrameTimeout, ReplyFrames
from web.request.shutdown import Shutdown, shutting_down_error
from web.server import disconnect
from web.server.disconnect import DisconnectWatcher

#: Seconds after the deadline in which the worker may report the timeout before the front does.
WORKER_MARGIN_SECONDS = 5.0
#: Seconds until a held request asks again whether it may go on, after Redis did not reply.
RECHECK_SECONDS = 1.0
#: How a request that its worker did not end appears in the request log.
REQUEST_LOST = ApiError(502, "request_lost", "the request was removed from the queue", "server_error")
CLIENT_GONE = ApiError(499, "client_gone", "the caller disconnected", "server_error")
#: Where a request stands whose worker was quicker than the retry of an enqueue with a lost reply.
UNKNOWN_ADMISSION = Admission(0, 0, LimitUsage())


@dataclass(frozen=True)
class RequestServices:
    """What all pending requests of a front share."""

    queue: RelayQueue
    hub: Hub
    overload: Overload
    availability: Availability
    log_buffer: RequestLogBuffer
    shutdown: Shutdown
    #: Seconds.
    queue_timeout: float
    #: Whether a running job is cancelled when its caller disconnects; a queued one always is.
    cancels_on_disconnect: bool
    #: Whether a request is refused when its pool rests for longer than it may wait.
    heeds_rest: bool = True
    interactive_load: InteractiveLoad = field(default_factory=InteractiveLoad)
    #: Request id -> request that no worker has taken yet, as far as this front knows.
    queued: "dict[str, PendingRequest]" = field(default_factory=dict)


@dataclass
class PendingRequest(ReplyFrames):
    """One relay request that waits for its frames."""

    services: RequestServices
    request: RelayRequest
    key: ApiKey
    #: None where the WSGI server does not expose it.
    caller_socket: Any
    #: Tokens to reserve, should the key have limits.
    reserved_tokens: int = 0
    #: The upstream's name of the model, '' if it is the caller's.
    upstream_model: str = ""
    admission: Admission = UNKNOWN_ADMISSION
    mailbox: Mailbox = field(init=False)
    #: When to ask whether the request, which is held, may go on; by the monotonic clock.
    _recheck_at: float = float("inf")
    #: The rest of its pool when it was submitted, None for one in service.
    rest: PoolRest | None = None
    #: Whether a worker has the job, so that the queue timeout no longer applies.
    _is_running: bool = False
    #: The rest of its pool, once that is found to outlast what the request may wait.
    _hopeless_rest: PoolRest | None = None
    _is_closed: bool = False

    @property
    def wants_stream(self) -> bool:
        return self.request.stream

    @property
    def model(self) -> str:
        """The upstream's name of the model."""
        return self.upstream_model or self.request.model

    def submit(self, body: bytes | LargeBody) -> None:
        """Opens the reply channel, then enqueues the job.

        Raises ApiError 429 when the queue is full, a limit is hit, or the pool rests for longer than the request may
        wait; 503 when the front is being stopped.
        """
        self.services.shutdown.check()
        if self.services.heeds_rest:
            self.rest = retry_for(lambda: self.services.availability.find_rest(self.request.pool, self.model))
        if self.rest and self.rest.outlasts(self.gives_up_at):
            raise self.services.overload.build_rest_error(self.request.pool, self.rest)
        # Not a method of this object: a reference cycle would keep the request until the next garbage collection.
        on_overdue = partial(disconnect.abort, self.caller_socket)
        self.mailbox = self.services.hub.open(
            self.request.id, self.request.deadline + 2 * WORKER_MARGIN_SECONDS, on_overdue
        )
        self._disconnect_watcher = DisconnectWatcher(self.caller_socket, self.mailbox.abandon)
        if self.request.is_interactive:
            self.services.interactive_load.begin(self.request.pool)
        try:
            retry_for(lambda: self._enqueue(body), lambda: self.mailbox.ended_by_front)
            self.mailbox.is_enqueued = True
            self.services.queued[self.request.id] = self
        except QueueFull as error:
            self._detach()
            raise self._build_overload("queue_full", error.message, error.waiting) from None
        except LimitReached as error:
            self._detach()
            raise limit_headers.limit_reached_error(self.key, error) from None
        except BaseException as error:
            # Redis may have the job, also if the caller's greenlet was killed.
            if not isinstance(error, ApiError):
                self.services.hub.abandoned[self.request.id] = self.request.pool
            self._detach()
            raise

    def _enqueue(self, body: bytes | LargeBody) -> None:
        """Idempotent: a retry after a lost Redis reply does not enqueue the job twice."""
        if not self.mailbox.has_started:
            demand = encode_demand(self.key, self.reserved_tokens, self.request.enqueued_at)
            self.admission = self.services.queue.enqueue(
                self.request, body, demand, self.key.weight, self.upstream_model
            )
            self._plan_recheck(self.admission.recheck_seconds)

    def _build_overload(self, code: str, message: str, waiting: int) -> ApiError:
        return self.services.overload.build_error(code, message, self.request.pool, waiting, self.model)

    @property
    def gives_up_at(self) -> float:
        """When the request has waited for as long as it may, in seconds since the epoch."""
        return min(self.request.deadline, self.request.enqueued_at + self.services.queue_timeout)

    def give_up(self, rest: PoolRest) -> None:
        """Ends the request, if it is still queued: its pool rests for longer than it may wait."""
        self._hopeless_rest = rest
        self.mailbox.wake()

    def _plan_recheck(self, seconds: float) -> None:
        self._recheck_at = time.monotonic() + seconds if seconds else float("inf")

    def _recheck(self) -> None:
        """Lets the key's held requests go on as far as its limits allow: that a minute is over wakes nobody."""
        try:
            self._plan_recheck(self.services.queue.release_held(self.key.id, self.request.id))
        except RedisError:
            self._plan_recheck(RECHECK_SECONDS)

    def wait_for_frames(self, timeout: float) -> list[Frame]:
        """Returns the next frames. Raises FrameTimeout after `timeout` seconds, ApiError if the request has expired."""
        timeout_at = time.monotonic() + timeout
        while True:
            if not self._is_running and (self._hopeless_rest or self.services.shutdown.is_stopping):
                self._leave()
            seconds_left = self._seconds_left()
            frames = self.mailbox.get(min(min(timeout_at, self._recheck_at) - time.monotonic(), seconds_left))
            if frames:
                if not self._is_running:
                    self._begin_running()
                return frames
            if seconds_left <= 0 or self._seconds_left() <= 0:
                self._expire()
            elif time.monotonic() >= self._recheck_at:
                self._recheck()
            elif time.monotonic() >= timeout_at:
                raise FrameTimeout

    def _seconds_left(self) -> float:
        """Seconds until the queue timeout or the request's deadline, whichever comes first."""
        total_left = self.request.deadline + WORKER_MARGIN_SECONDS - clock.now()
        if self._is_running:
            return total_left
        return min(total_left, self.request.enqueued_at + self.services.queue_timeout - clock.now())

    def _begin_running(self) -> None:
        self._is_running, self._recheck_at = True, float("inf")
        self.services.queued.pop(self.request.id, None)

    def _expire(self) -> None:
        """Withdraws a queued job and raises ApiError 429, or 502 when the upstream is down.

        A job that a worker has already taken goes on until its own deadline; only then ApiError 504 is raised.
        """
        if clock.now() > self.request.deadline + WORKER_MARGIN_SECONDS:
            error = ApiError(504, "total_timeout", "the request exceeded its total timeout", "server_error")
            self.close(error)
            raise error
        try:
            if not self.services.queue.withdraw(self.request.pool, self.request.id):
                self._begin_running()
                return
            error = self._find_reason()
        except RedisError:
            self.close()
            raise ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error") from None
        self._record_ended(error)
        self.close()
        raise error

    def _find_reason(self) -> ApiError:
        """Why a request that has been withdrawn could not be started in time."""
        pool = self.request.pool
        if self._hopeless_rest:
            return self.services.overload.build_rest_error(pool, self._hopeless_rest)
        if self.services.availability.is_down(pool):
            message = "the upstream is down and did not recover in time"
            return ApiError(502, "upstream_unavailable", message, "upstream_error")
        return self.build_queue_timeout()

    def build_queue_timeout(self) -> ApiError:
        """Raises RedisError."""
        message = "the request could not be started in time; try again later"
        waiting = self.services.queue.count_waiting(self.request.pool)
        return self._build_overload("queue_timeout", message, waiting)

    def _leave(self) -> None:
        """Raises ApiError: the queued request will not be served, as the front is being stopped, or its pool rests."""
        if self.services.shutdown.is_stopping:
            self._leave_queue()
        else:
            self._expire()

    def _leave_queue(self) -> None:
        """Withdraws a queued job and raises ApiError 503, because the front is being stopped; a running one goes on."""
        try:
            if not self.services.queue.withdraw(self.request.pool, self.request.id):
                self._begin_running()
                return
        except RedisError:
            self.close()
            raise shutting_down_error() from None
        error = shutting_down_error()
        self._record_ended(error)
        self.close()
        raise error

    def close(self, error: ApiError = CLIENT_GONE) -> None:
        """Closes the mailbox and withdraws or stops an unfinished job. Idempotent.

        `error` is what the request log says about a request that was still queued.
        """
        if self._is_closed:
            return
        ended_by_worker = self.mailbox.ended and not self.mailbox.ended_by_front
        self._detach()
        if not ended_by_worker:
            try:
                outcome = self.services.queue.cancel(
                    self.request.pool,
                    self.request.id,
                    self.key.id,
                    only_waiting=not self.services.cancels_on_disconnect,
                )
                # A job that an operator removed from the queue has no worker to log it.
                if outcome == "withdrawn" or (outcome == "gone" and self.mailbox.is_lost):
                    self._record_ended(REQUEST_LOST if self.mailbox.is_lost else error)
            except RedisError:
                self.services.hub.abandoned[self.request.id] = self.request.pool

    def _record_ended(self, error: ApiError) -> None:
        self.services.log_buffer.record_ended(self.request, error, self.admission.ahead_of)

    def _detach(self) -> None:
        if self.request.is_interactive and not self._is_closed:
            self.services.interactive_load.end(self.request.pool)
        self._is_closed = True
        self.services.queued.pop(self.request.id, None)
        self._disconnect_watcher.stop()
        self.services.hub.close(self.mailbox)
