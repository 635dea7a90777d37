"""Parsers of untrusted values: JSON bodies and Retry-After headers."""

import json
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


def parse_retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date (RFC 9110 section 10.2.3); None if absent or invalid."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return None
