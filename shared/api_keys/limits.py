"""What a request asks of its API key's limits, and how they stand; Redis decides, in shared/protocol/limits.lua.

The limits of a key hold over all web processes: one script looks at all of them and admits the request, so nothing is
counted that was not admitted, and two that come together do not both take the last place.
"""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from shared.api_keys.api_key import ApiKey
from shared.errors import FarmError

#: Tokens that an answer is expected to have at least, when the request says nothing.
MIN_COMPLETION_TOKENS = 64
#: Bytes of a body for each token that is reserved: fewer than any text needs, because too much is given back.
BYTES_PER_TOKEN = 2


#: Tokens that one request can have at most, whatever a caller or an upstream says: sums of them stay exact in Redis.
MAX_TOKENS_PER_REQUEST = 10**9


class LimitReached(FarmError):
    """Raised when a limit of the API key stands against a request."""

    def __init__(self, limit: str, wait_seconds: float, usage: "LimitUsage") -> None:
        super().__init__(limit)
        #: `concurrency`, `requests`, `tokens`, `quota_tokens` or `quota_requests`.
        self.limit = limit
        #: Seconds until it may be tried again, 0 when that is not known.
        self.wait_seconds = wait_seconds
        self.usage = usage


@dataclass(frozen=True)
class LimitUsage:
    """How much of the minute's limits is used, the present request included."""

    requests: int = 0
    #: Seconds until no request counts any more.
    requests_reset: float = 0.0
    tokens: int = 0
    tokens_reset: float = 0.0

    @classmethod
    def decode(cls, words: list[bytes]) -> "LimitUsage":
        """From the script's answer, which has nothing for a key without limits."""
        numbers = [float(word) for word in words]
        return cls(int(numbers[0]), numbers[1], int(numbers[2]), numbers[3]) if numbers else cls()


def encode_demand(key: ApiKey, tokens: int, now: float) -> bytes:
    """What the scripts are told of a request of the key that may use so many tokens; b'' when nothing is limited."""
    limits = (key.concurrency, key.rpm, key.tpm, key.quota_tokens, key.quota_requests)
    if not any(limits):
        return b""
    names = ("concurrency", "rpm", "tpm", "quota_tokens", "quota_requests")
    want: dict[str, Any] = dict(zip(names, limits, strict=True))
    return json.dumps({**want, "key": key.id, "tokens": tokens, "period": quota_period(key, now)}).encode()


def quota_period(key: ApiKey, now: float) -> str:
    """The period that the quota is counted in, as a date in the key's time zone; weeks begin on Monday (ISO 8601)."""
    if key.quota_reset == "never":
        return "-"
    day = datetime.fromtimestamp(now, ZoneInfo(key.quota_zone))
    formats = {"daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m"}
    return day.strftime(formats[key.quota_reset])


def estimate_tokens(body_bytes: int, max_tokens: int | None, choices: int) -> int:
    """Tokens to reserve: for the body, and as many for each answer unless the request bounds it."""
    prompt = math.ceil(body_bytes / BYTES_PER_TOKEN)
    wanted = prompt + max(1, choices) * (max_tokens if max_tokens is not None else max(MIN_COMPLETION_TOKENS, prompt))
    return min(wanted, MAX_TOKENS_PER_REQUEST)
