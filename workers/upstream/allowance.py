"""Reads from a response's headers how long its account has nothing left at the upstream. No I/O.

Read are OpenAI's `x-ratelimit-remaining-requests` and `x-ratelimit-reset-requests` (the same for tokens, for days, and
without a suffix), Anthropic's `anthropic-ratelimit-requests-remaining` and `-reset`, and `ratelimit-remaining` of an
IETF draft.
"""

import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from shared.credentials.activity.allowance import Left
from shared.parsing import parse_date

#: What the name of every header of a rate limit holds.
MARK = "ratelimit"
#: What the names of Retry-After and OpenAI's `retry-after-ms` begin with.
RETRY_AFTER = "retry-after"
#: Parts that are no part of what a limit counts.
COMMON_PARTS = frozenset({"x", "ratelimit", "remaining", "anthropic", "rate", "limit"})
#: Limits that are kept, and characters of their names.
MAX_LIMITS, MAX_NAME_LENGTH = 8, 40
#: Numbers from here on are a time since the epoch in seconds or milliseconds, smaller ones are seconds to wait.
MIN_EPOCH_SECONDS, MIN_EPOCH_MILLISECONDS = 1e9, 1e12
UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: A duration as Go prints it, which is how OpenAI does: `1s`, `6m0s`, `1h30m0.5s`, `120ms`.
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")


def find_limit_names(names: Collection[str]) -> list[str]:
    """Those of the headers, in lower case, that tell when the account may go on."""
    return [name for name in names if MARK in name or name.startswith(RETRY_AFTER)]


def find_exhausted_seconds(headers: Mapping[str, str], now: float) -> float:
    """Seconds until every limit is reset of which the account has nothing left; 0.0 when it may go on.

    `now`: seconds since the epoch. A limit that doesn't say when it is reset, or not understandably, is ignored.
    """
    named = {name.lower(): value for name, value in headers.items()}
    resets = [named.get(name.replace("remaining", "reset"), "") for name in named if is_used_up(name, named[name])]
    return max((parse_reset(reset, now) for reset in resets), default=0.0)


def find_left(headers: Mapping[str, str], now: float) -> tuple[Left, ...]:
    """What is left of each limit that the headers name, in their order; `now` in seconds since the epoch."""
    named = {name.lower(): value for name, value in headers.items()}
    found = []
    for name, value in named.items():
        remaining = parse_count(value) if "remaining" in name else None
        if remaining is None:
            continue
        reset = parse_reset(named.get(name.replace("remaining", "reset"), ""), now)
        limit = parse_count(named.get(name.replace("remaining", "limit"), ""))
        found.append(Left(name_limit(name), remaining, limit, now + reset if reset else 0.0))
    return tuple(found[:MAX_LIMITS])


def name_limit(header: str) -> str:
    """What a header's limit counts: `requests` for `x-ratelimit-remaining-requests`, and where it names nothing."""
    return "-".join(part for part in header.split("-") if part not in COMMON_PARTS)[:MAX_NAME_LENGTH] or "requests"


def parse_count(value: str) -> float | None:
    """A number that is not negative; None for anything else."""
    try:
        count = float(value.partition(",")[0].strip())
    except ValueError:
        return None
    return max(0.0, count) if math.isfinite(count) else None


def is_used_up(name: str, value: str) -> bool:
    """Whether the header says that nothing is left."""
    if "remaining" not in name:
        return False
    try:
        return float(value.strip()) <= 0
    except ValueError:
        return False


def parse_reset(value: str, now: float) -> float:
    """Seconds until a reset: from a number of seconds, a duration, a time since the epoch, or a date (ISO 8601, HTTP).

    0.0 if it has passed, or for anything else.
    """
    text = value.strip()
    if DURATION.fullmatch(text):
        return sum(float(number) * UNIT_SECONDS[unit] for number, unit in DURATION_PART.findall(text))
    try:
        seconds = float(text)
    except ValueError:
        seconds = parse_time(text)
    if seconds >= MIN_EPOCH_SECONDS:
        seconds = (seconds / 1000 if seconds >= MIN_EPOCH_MILLISECONDS else seconds) - now
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def parse_time(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 or HTTP date, in UTC unless it names an offset; NaN for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return parse_date(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
