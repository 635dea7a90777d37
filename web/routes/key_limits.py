"""Admits requests that make no job, and counts them against the limits of their API key."""

from flask import g

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached
from shared.redis_connection.retry import retry_for
from web.request import limit_headers
from web.routes.relay import authenticate
from web.services import services


def admit_caller(endpoint: str) -> ApiKey:
    """The caller's API key, once it has been checked and the request counted. Raises ApiError 401, 403, 429.

    `endpoint` is what metrics and the log call it.
    """
    g.endpoint = endpoint
    key = authenticate(services())
    count_request(key)
    return key


def count_request(key: ApiKey) -> None:
    """Counts the request against the key's requests per minute. Raises ApiError 429."""
    queue = services().request_services.queue
    try:
        limit_usage = retry_for(lambda: queue.count_request(key, clock.now()))
    except LimitReached as error:
        raise limit_headers.limit_reached_error(key, error) from None
    g.reply_headers = limit_headers.build_headers(key, limit_usage)
