"""Encodes a request's demand on its API key's limits, and decodes their usage.

Limits apply across all fronts. Redis enforces them in shared/protocol/limits.lua and held_requests.lua: one script
checks all limits of a key and admits or holds the request atomically, so a refused request is not counted, and two
concurrent ones cannot both take the last free place.
"""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from shared.api_keys.api_key import ApiKey
from shared.errors import FarmError

#: Minimum tokens reserved for a completion when the request sets no maximum.
MIN_COMPLETION_TOKENS = 64
#: Bytes of the body per reserved prompt token: fewer than in any real text, because the surplus is given back.
BYTES_PER_TOKEN = 2
#: Tokens reserved for an image, an audio clip or a file of any size.
TOKENS_PER_MEDIUM = 1000
#: Cap on the tokens of one request, whatever a caller or an upstream claims; keeps sums in Redis exact.
MAX_TOKENS_PER_REQUEST = 10**9


class LimitReached(FarmError):
    """Raised when a limit of the API key refuses a request, which may not even wait."""

    def __init__(self, limit: str, wait_seconds: float, usage: "LimitUsage") -> None:
        super().__init__(limit)
        #: `concurrency`, `requests`, `tokens`, `quota_tokens`, `quota_requests`, or `reserved`: a quota that is used up
        #: only if running requests use all that is reserved for them.
        self.limit = limit
        #: Seconds until a retry can succeed; 0 if unknown.
        self.wait_seconds = wait_seconds
        self.usage = usage


@dataclass(frozen=True)
class LimitUsage:
    """Usage of the per-minute limits, including the current request."""

    requests: int = 0
    #: Seconds until the window is empty.
    requests_reset: float = 0.0
    tokens: int = 0
    tokens_reset: float = 0.0

    @classmethod
    def decode(cls, words: list[bytes]) -> "LimitUsage":
        """Decodes the script's reply, which is empty for a key without limits."""
        numbers = [float(word) for word in words]
        return cls(int(numbers[0]), numbers[1], int(numbers[2]), numbers[3]) if numbers else cls()


def encode_demand(key: ApiKey, tokens: int, now: float) -> bytes:
    """Encodes the key's limits and the tokens to reserve for the scripts; b'' if the key has no limits."""
    limits = (key.concurrency, key.rpm, key.tpm, key.quota_tokens, key.quota_requests)
    if not any(limits):
        return b""
    names = ("concurrency", "rpm", "tpm", "quota_tokens", "quota_requests", "max_waiting", "version")
    demand: dict[str, Any] = {name: getattr(key, name) for name in names}
    # A request that reserves more than a limit would keep all others out for as long as it runs.
    tokens = min([tokens, *(limit for limit in (key.tpm, key.quota_tokens) if limit)])
    return json.dumps({**demand, "key": key.id, "tokens": tokens, "period": quota_period(key, now)}).encode()


def encode_limits(key: ApiKey) -> bytes:
    """Encodes the limits that held and queued requests wait for."""
    return json.dumps({name: getattr(key, name) for name in ("version", "concurrency", "rpm", "tpm")}).encode()


def quota_period(key: ApiKey, now: float) -> str:
    """The current quota period, as a date in the key's time zone; weeks start on Monday (ISO 8601); '-' for never."""
    if key.quota_reset == "never":
        return "-"
    day = datetime.fromtimestamp(now, ZoneInfo(key.quota_zone))
    formats = {"daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m"}
    return day.strftime(formats[key.quota_reset])


def estimate_tokens(text_bytes: int, max_tokens: int | None, choices: int, media: int = 0) -> int:
    """Tokens to reserve: for the prompt, plus `max_tokens` (or as many as the prompt's text) per choice.

    `media` is the number of images, audio clips and files, whose size says little about their tokens.
    """
    text = math.ceil(text_bytes / BYTES_PER_TOKEN)
    completion = max(1, choices) * (max_tokens if max_tokens is not None else max(MIN_COMPLETION_TOKENS, text))
    return min(text + media * TOKENS_PER_MEDIUM + completion, MAX_TOKENS_PER_REQUEST)
