"""Counts requests that make no job against the limits of their API key."""

import time

from flask import g

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached
from shared.redis_connection.retry import retry_for
from web.request import limit_headers
from web.services import services


def count_request(key: ApiKey) -> None:
    """Counts the request against the key's requests per minute. Raises ApiError 429."""
    queue = services().request_services.queue
    try:
        limit_usage = retry_for(lambda: queue.count_request(key, time.time()))
    except LimitReached as error:
        raise limit_headers.limit_reached_error(key, error) from None
    g.reply_headers = limit_headers.build_headers(key, limit_usage)
