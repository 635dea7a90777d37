"""Asks the farm for one line of a batch, as a relay request of its API key in the batch band."""

from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from shared import clock, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import estimate_tokens
from shared.errors import ApiError
from shared.observability.counters import Counters
from shared.parsing import parse_retry_after
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from web.batches.lines.line_parser import JSON
from web.batches.lines.results import LineReply, build_error_reply
from web.request.body import RequestBody
from web.request.body_memory import UNRESERVED_BYTES, BodyMemory, Reservation
from web.request.capacity.pool_selection import PoolSelector
from web.request.pending import PendingRequest, RequestServices
from web.request.rendering import NO_TIMEOUT

#: Codes of the farm's own refusals: the line has not been run, and is tried again as long as its batch may take.
REFUSALS = frozenset(
    {
        "queue_full",
        "queue_timeout",
        "rate_limit_exceeded",
        "insufficient_quota",
        "no_credentials",
        "upstream_unavailable",
        "store_unavailable",
        "shutting_down",
    }
)
#: Statuses after which a line is tried again a few times.
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 499, *range(500, 600)})
#: Seconds between two tries, at most.
MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class LineRequests:
    """What the requests of all lines share."""

    services: RequestServices
    pool_selector: PoolSelector
    counters: Counters
    body_memory: BodyMemory

    def ask(self, key: ApiKey, endpoint: str, length: int, read_body: Callable[[], RequestBody]) -> LineReply:
        """Returns the reply, which may be an error. Killing the greenlet cancels the request.

        `read_body` is called once there is memory for a line of `length` bytes; what it raises passes, unless it is an
        ApiError.
        """
        request_id = names.new_request_id()
        pool = ""
        try:
            # While the reply is awaited, no copy of the body is kept.
            with Reservation(self.body_memory, f"{key.id}:batch") as reservation:
                if length > UNRESERVED_BYTES:
                    reservation.reserve(length)
                pending_request = self._submit(request_id, key, endpoint, read_body())
            pool = names.configured_pool(pending_request.request.pool)
            reply = receive(pending_request)
        except ApiError as error:
            reply = build_error_reply(error, request_id, parse_retry_after(error.headers.get("retry-after")) or 0.0)
        except RedisError:
            away = ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")
            reply = build_error_reply(away, request_id, 0.0)
        self.counters.increment("requests", pool, endpoint.removeprefix("/v1"), str(reply.status))
        return reply

    def _submit(self, request_id: str, key: ApiKey, endpoint: str, body: RequestBody) -> PendingRequest:
        """Raises ApiError."""
        pool = self.pool_selector.select(body.model, key)
        retry_for(lambda: self.services.availability.check(pool.name))
        upstream_model = pool.model_map.get(body.model, body.model)
        pending_request = PendingRequest(
            self.services,
            self._build_request(request_id, pool.name, endpoint, key, body.model),
            key,
            None,
            estimate_tokens(body.text_bytes, body.max_tokens, body.choices, body.media),
            upstream_model,
        )
        pending_request.submit(body.with_model(upstream_model).content)
        return pending_request

    def _build_request(self, request_id: str, pool: str, endpoint: str, key: ApiKey, model: str) -> RelayRequest:
        now = clock.now()
        return RelayRequest(
            id=request_id,
            pool=pool,
            path=endpoint.removeprefix("/v1"),
            headers={"content-type": JSON},
            front=self.services.hub.front_id,
            channel=self.services.hub.channel(request_id),
            enqueued_at=now,
            deadline=now + self.pool_selector.total_timeout(pool),
            key=key.id,
            band="batch",
            model=model,
        )


def receive(pending_request: PendingRequest) -> LineReply:
    """Waits for the whole reply. Raises ApiError."""
    try:
        head, frames = pending_request.wait_for_head(NO_TIMEOUT)
        body = b"".join(pending_request.iter_body(frames, NO_TIMEOUT))
    finally:
        pending_request.close()
    retry_after = parse_retry_after(head.headers.get("retry-after")) or 0.0
    return LineReply(head.status, pending_request.request.id, body, retry_after=retry_after)
