"""A request that gets the answer to another one, and its API key's limits."""

from shared import clock
from shared.api_keys.limits import LimitReached, LimitUsage
from shared.redis_connection.retry import retry_for
from web.request import limit_headers
from web.request.pending import PendingRequest


def count_unrun(pending_request: PendingRequest) -> LimitUsage:
    """Counts a request that is not run against its key's requests per minute. Raises ApiError 429, RedisError."""
    key, queue = pending_request.key, pending_request.services.queue
    try:
        return retry_for(lambda: queue.count_request(key, clock.now()))
    except LimitReached as error:
        raise limit_headers.limit_reached_error(key, error) from None
