"""The balance endpoints that clients of OpenAI gateways call: the calling key's quota and usage.

Paths and shapes are those of other gateways; an amount in "dollars" means thousands of tokens here.
Source: OpenAI's former dashboard endpoints, as such clients still call them.
"""

import time
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, g, request

from shared import clock, keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, quota_period
from shared.errors import ApiError
from shared.redis_connection.retry import retry_for
from web.request import limit_headers
from web.routes.relay import authenticate
from web.services import services

blueprint = Blueprint("billing", __name__)
#: Tokens shown as one unit, and the limit shown for a key without a quota.
TOKENS_PER_UNIT, UNLIMITED_UNITS = 1000, 100_000_000
DAY_SECONDS = 86_400
#: Longest range of days that a client may query.
MAX_DAYS = 400


@blueprint.get("/v1/dashboard/billing/subscription")
@blueprint.get("/dashboard/billing/subscription")
def subscription() -> dict[str, Any]:
    key = authenticate(services())
    limit = key.quota_tokens / TOKENS_PER_UNIT if key.quota_tokens else UNLIMITED_UNITS
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": limit,
        "hard_limit_usd": limit,
        "system_hard_limit_usd": limit,
        "access_until": int(key.expires_at),
    }


@blueprint.get("/v1/dashboard/billing/usage")
@blueprint.get("/dashboard/billing/usage")
def usage() -> dict[str, Any]:
    """The calling key's usage in hundredths of a unit: between two dates if given, else in the current quota period."""
    key = authenticate(services())
    count_request(key)
    start, end = parse_day("start_date"), parse_day("end_date")
    tokens = read_quota_usage(key) if start is None and end is None else sum_usage_between(key, start, end)
    return {"object": "list", "total_usage": 100 * tokens / TOKENS_PER_UNIT}


def count_request(key: ApiKey) -> None:
    """Counts the request against the key's requests per minute. Raises ApiError 429."""
    queue = services().request_services.queue
    try:
        limit_usage = retry_for(lambda: queue.count_request(key, clock.now()))
    except LimitReached as error:
        raise limit_headers.limit_reached_error(key, error) from None
    g.reply_headers = limit_headers.build_headers(key, limit_usage)


def parse_day(name: str) -> float | None:
    """Parses a date of the query (YYYY-MM-DD, UTC) into seconds since the epoch. Raises ApiError 400."""
    text = request.args.get(name)
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ApiError(400, "invalid_parameter", f"{name} must be a date, YYYY-MM-DD", param=name) from None


def read_quota_usage(key: ApiKey) -> int:
    period, tokens = services().redis.hmget(keys.quota(key.id), "period", "tokens")
    is_current = period is not None and period.decode() == quota_period(key, time.time())
    return int(tokens or 0) if is_current else 0


def sum_usage_between(key: ApiKey, start: float | None, end: float | None) -> int:
    """Sums the tokens of the UTC days from `start` to before `end`."""
    tomorrow = (time.time() // DAY_SECONDS + 1) * DAY_SECONDS
    until = min(end or tomorrow, tomorrow)
    since = max(start or 0.0, until - MAX_DAYS * DAY_SECONDS)
    return services().key_tokens.get((key.id, since, until - 1))
