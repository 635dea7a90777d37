"""Moments on the command line: a date, seconds since the epoch, or how long ago."""

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
AGE_PATTERN = re.compile(r"(\d+)([smhdw])")


def parse_time(text: str) -> float:
    """Seconds since the epoch. Raises ValueError.

    A date is written as ISO 8601 does, in UTC without a zone; `2h` is two hours ago.
    """
    if match := AGE_PATTERN.fullmatch(text):
        return time.time() - int(match[1]) * UNIT_SECONDS[match[2]]
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class TimeParameter(click.ParamType[float]):
    """A moment as an option's value."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """click: the value. Fails with exit code 2."""
        try:
            return value if isinstance(value, float) else parse_time(value)
        except ValueError:
            self.fail(
                "must be a date such as 2027-01-31 or 2027-01-31T18:00+01:00, seconds, or e.g. 2h", param, context
            )


TIME = TimeParameter()
