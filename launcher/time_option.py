"""The type of time options: a date, seconds since the epoch, or an age such as 2h."""

import math
import re
import time
from datetime import UTC, datetime
from typing import Any

import click

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
AGE_PATTERN = re.compile(r"(\d+)([smhdw])")


def parse_time(text: str) -> float:
    """Returns seconds since the epoch. Raises ValueError.

    Dates are ISO 8601, in UTC unless they have a zone; `2h` is two hours ago.
    """
    if match := AGE_PATTERN.fullmatch(text):
        return time.time() - int(match[1]) * UNIT_SECONDS[match[2]]
    try:
        seconds = float(text)
    except ValueError:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


class TimeParameter(click.ParamType[float]):
    """The click type of a time option; an invalid value exits with code 2."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_time(value)
        except ValueError:
            self.fail(
                "must be a date such as 2027-01-31 or 2027-01-31T18:00+01:00, seconds since the epoch, or e.g. 2h",
                param,
                context,
            )


TIME = TimeParameter()
