"""Asks the farm for one line of a batch, as a relay request of its API key in the batch band."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from redis.exceptions import RedisError

from shared import clock, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import estimate_tokens
from shared.errors import ApiError
from shared.observability.counters import Counters
from shared.parsing import parse_retry_after
from shared.protocol.messages import RelayRequest
from shared.redis_connection.retry import retry_for
from web.batches.lines.line_body import LineBody, LineSubmission
from web.batches.lines.line_parser import JSON
from web.batches.lines.results import LineReply, build_error_reply
from web.replay.caller import Caller
from web.replay.runs import Runs
from web.replay.sharing import find_sharing
from web.request.body import RequestBody
from web.request.body_memory import BodyMemory
from web.request.capacity.pool_selection import PoolSelector
from web.request.pending import PendingRequest, RequestServices
from web.request.rendering import NO_TIMEOUT
from web.request.reply_frames import ReplyFrames

#: Codes of the farm's own refusals: the line has not been run, for a reason that is not its own, and is tried again as
#: long as its batch may take.
REFUSALS = frozenset(
    {
        "queue_full",
        "queue_timeout",
        "rate_limit_exceeded",
        "insufficient_quota",
        "no_credentials",
        "upstream_unavailable",
        "upstream_auth_failed",
        "upstream_login_failed",
        "store_unavailable",
        "shutting_down",
    }
)
#: Statuses after which a line is tried again a few times.
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 499, *range(500, 600)})
#: Seconds between two tries, at most.
MAX_PAUSE_SECONDS = 30.0


class AskedLine(NamedTuple):
    """A line whose reply is on its way."""

    reply: ReplyFrames
    #: The configured name of its pool.
    pool: str
    submission: LineSubmission


@dataclass(frozen=True)
class LineRequests:
    """What the requests of all lines share."""

    services: RequestServices
    pool_selector: PoolSelector
    counters: Counters
    body_memory: BodyMemory
    runs: Runs

    def ask(self, key: ApiKey, endpoint: str, length: int, read_body: Callable[[], RequestBody]) -> LineReply:
        """Returns the reply, which may be an error. Killing the greenlet cancels the request, unless others share it.

        `read_body` is called once there is memory for a line of `length` bytes, and again if the line is run after it
        has followed another request for a while. It may raise ApiError.
        """
        request_id, pool = names.new_request_id(), ""
        try:
            # While the reply is awaited, no copy of the body is kept.
            body = LineBody(self.body_memory, f"{key.id}:batch", length, read_body)
            asked = self._ask(request_id, key, endpoint, body)
            pool = asked.pool
            reply = receive(asked, request_id)
        except ApiError as error:
            reply = build_error_reply(error, request_id, parse_retry_after(error.headers.get("retry-after")) or 0.0)
        except RedisError:
            away = ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")
            reply = build_error_reply(away, request_id, 0.0)
        self.counters.increment("requests", pool, endpoint.removeprefix("/v1"), str(reply.status))
        return reply

    def _ask(self, request_id: str, key: ApiKey, endpoint: str, source: LineBody) -> AskedLine:
        """Raises ApiError, RedisError."""
        with source.hold() as body:
            pool = self.pool_selector.select(body.model, key)
            retry_for(lambda: self.services.availability.check(pool.name))
            pending_request = PendingRequest(
                self.services,
                self._build_request(request_id, pool.name, endpoint, key, body.model),
                key,
                None,
                estimate_tokens(body.text_bytes, body.max_tokens, body.choices, body.media),
                pool.model_map.get(body.model, body.model),
            )
            submission = LineSubmission(pending_request, source, body)
            sharing = find_sharing(endpoint.removeprefix("/v1/"), key, pool, body, pending_request.request)
            if sharing is None:
                submission.submit()
                return AskedLine(pending_request, pool.configured_name, submission)
            joined = self.runs.open(Caller(pending_request, sharing, submission.submit))
            submission.drop_body()
            return AskedLine(joined.follower, pool.configured_name, submission)

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


def receive(line: AskedLine, request_id: str) -> LineReply:
    """Waits for the whole reply. Raises ApiError."""
    try:
        head, frames = line.reply.wait_for_head(NO_TIMEOUT)
        body = b"".join(line.reply.iter_body(frames, NO_TIMEOUT))
    finally:
        line.reply.close()
    retry_after = parse_retry_after(head.headers.get("retry-after")) or 0.0
    return LineReply(head.status, request_id, body, retry_after=retry_after, is_shared=not line.submission.is_submitted)
