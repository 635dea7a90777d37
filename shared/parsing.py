"""Parsers of untrusted values: JSON bodies, numbers and Retry-After headers."""

import json
import math
from email.utils import parsedate_to_datetime
from time import time
from typing import Any


def parse_json(body: bytes) -> Any:
    """Parses JSON; returns None for invalid input."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parses a JSON object; returns {} for anything else."""
    value = parse_json(body)
    return value if isinstance(value, dict) else {}


def read_number(stored: Any) -> float:
    """A stored number; 0.0 for none, or for what is no number."""
    try:
        return float(stored or 0)
    except (TypeError, ValueError):
        return 0.0


def parse_whole_number(text: str, least: int, most: int) -> int | None:
    """A whole number within these bounds in decimal digits; None for anything else, however long."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_number and least <= int(text) <= most else None


def parse_retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date (RFC 9110 section 10.2.3); None if absent or invalid.

    Of a header that was sent several times the first counts; some add the unit: `5s`.
    """
    if not header:
        return None
    try:
        seconds = float(header.partition(",")[0].strip().removesuffix("s"))
    except ValueError:
        seconds = parse_date(header) - time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def parse_date(text: str) -> float:
    """Seconds since the epoch of a date in the format of mail and HTTP; NaN for anything else."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return math.nan
