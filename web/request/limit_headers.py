"""Rate limit headers and errors in OpenAI's shape; the limits themselves are enforced in Redis.

Source: the OpenAI API reference, "Rate limits" (headers) and "Error codes".
"""

import math

from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage
from shared.errors import ApiError

#: Milliseconds to wait if unknown: another request of the key has to finish first.
UNKNOWN_WAIT_MS = 1000
LIMIT_DESCRIPTIONS = {
    "concurrency": "requests at once",
    "requests": "requests per minute",
    "tokens": "tokens per minute",
}


def build_headers(key: ApiKey, usage: LimitUsage) -> dict[str, str]:
    headers: dict[str, str] = {}
    limits = (
        ("requests", key.rpm, usage.requests, usage.requests_reset),
        ("tokens", key.tpm, usage.tokens, usage.tokens_reset),
    )
    for name, limit, used, reset in limits:
        if limit:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
            headers[f"x-ratelimit-reset-{name}"] = format_duration(reset)
    return headers


def build_request_headers(key: ApiKey, usage: LimitUsage) -> dict[str, str]:
    """Those for a request that uses no tokens."""
    return build_headers(key.model_copy(update={"tpm": 0}), usage)


def format_duration(seconds: float) -> str:
    """Formats seconds as OpenAI's headers do: `6m0s`, `1.25s`, `20ms`."""
    milliseconds = max(0, math.ceil(1000 * seconds))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def limit_reached_error(key: ApiKey, reached: LimitReached) -> ApiError:
    usage_headers = build_headers(key, reached.usage)
    if reached.limit.startswith("quota"):
        message = "You exceeded the quota of this API key."
        return ApiError(
            429,
            "insufficient_quota",
            message,
            "insufficient_quota",
            headers={**usage_headers, "x-should-retry": "false"},
        )
    if reached.limit == "reserved":
        message = (
            "The rest of this API key's quota is reserved for its running requests. Try again when they have ended."
        )
        headers = {**usage_headers, "retry-after": str(math.ceil(reached.wait_seconds))}
        return ApiError(429, "rate_limit_exceeded", message, "tokens", headers=headers)
    limit = {"concurrency": key.concurrency, "requests": key.rpm, "tokens": key.tpm}[reached.limit]
    wait_ms = math.ceil(1000 * reached.wait_seconds) or UNKNOWN_WAIT_MS
    rule = f"{limit} {LIMIT_DESCRIPTIONS[reached.limit]}"
    message = (
        f"Rate limit reached for this API key: {rule}, and no further request may wait. "
        f"Try again in {format_duration(wait_ms / 1000)}."
    )
    retry_headers = {"retry-after": str(math.ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)}
    error_type = "tokens" if reached.limit == "tokens" else "requests"
    return ApiError(429, "rate_limit_exceeded", message, error_type, headers={**usage_headers, **retry_headers})
