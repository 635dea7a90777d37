"""Finds the lifetime of an access token in its token response, in the forms that endpoints use. No I/O."""

import base64
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from shared import clock
from shared.parsing import parse_json_object

#: Lifetime in seconds of an access token whose response has no `expires_in`, which is only RECOMMENDED.
DEFAULT_LIFETIME_SECONDS = 3600.0
#: Lifetime in seconds that stands for 0 and less: the token is used, because endpoints that never let it expire say 0
#: too, and renewed soon. And the longest one that is believed.
SHORT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS = 60.0, 86_400.0
#: Members that hold a lifetime or an expiry, whatever their names promise, in the order of trust.
LIFETIME_NAMES = ("expiresin", "expiredin", "expiresat", "expireson", "expires", "expiry", "expirydate", "expiration")
#: Numbers from here on are a time, in seconds or milliseconds since the epoch, if it is within ten years from now.
MIN_TIMESTAMP, MIN_TIMESTAMP_MS, MAX_TIMESTAMP_DISTANCE_SECONDS = 1e9, 1e11, 3.2e8
#: A number of seconds with its unit.
SECONDS_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?) ?(?:s|secs?|seconds?)", re.IGNORECASE)


def find_lifetime(fields: dict[str, Any], access_token: str) -> float:
    """Seconds for which the token is used. The names of `fields` are in lower case and without `_`."""
    for name in LIFETIME_NAMES:
        if (seconds := parse_lifetime(fields.get(name))) is not None:
            return limit_lifetime(seconds)
    return limit_lifetime(find_jwt_lifetime(access_token))


def limit_lifetime(seconds: float) -> float:
    return min(seconds, MAX_LIFETIME_SECONDS) if seconds > 0 else SHORT_LIFETIME_SECONDS


def parse_lifetime(value: Any) -> float | None:
    """Seconds from now, of a number of seconds, a time since the epoch or a date; None when it is neither."""
    number = parse_number(value)
    if number is None:
        return parse_date(value) if isinstance(value, str) else None
    if number >= MIN_TIMESTAMP:
        remaining = (number / 1000 if number >= MIN_TIMESTAMP_MS else number) - clock.now()
        if abs(remaining) < MAX_TIMESTAMP_DISTANCE_SECONDS:
            return remaining
    return number


def parse_number(value: Any) -> float | None:
    if isinstance(value, str) and (match := SECONDS_WITH_UNIT.fullmatch(value.strip())):
        value = match[1]
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if number is None or math.isnan(number) else number


def parse_date(text: str) -> float | None:
    """Seconds until a date of ISO 8601 or HTTP; one without a zone is in UTC."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = parse(text.strip())
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - clock.now()
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None


def find_jwt_lifetime(token: str) -> float:
    """Seconds until a JWT expires (RFC 7519 section 4.1.4); the default for other tokens and for expired ones."""
    parts = token.split(".")
    if len(parts) != 3:
        return DEFAULT_LIFETIME_SECONDS
    try:
        claims = parse_json_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return DEFAULT_LIFETIME_SECONDS
    expires_at = parse_number(claims.get("exp"))
    remaining = (expires_at or 0.0) - clock.now()
    return remaining if remaining > 0 else DEFAULT_LIFETIME_SECONDS
