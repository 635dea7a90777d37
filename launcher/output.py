"""Output of the commands: tables for people, JSON for programs, errors as one line."""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click
from redis.exceptions import RedisError

from shared.errors import FarmError

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_line(text: str) -> None:
    """Writes a line to standard output and flushes it."""
    click.echo(text)
    sys.stdout.flush()


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def format_time(seconds: float) -> str:
    """Formats seconds since the epoch in UTC; 0 becomes '-'."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds)) if seconds else "-"


def mask_password(url: str) -> str:
    """Replaces the password in a URL of Redis, before the host or in the query, by `***`."""
    masked = re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&](?:sentinel_)?password=)[^&]*", r"\1***", masked)


def exit_on_error(command: Callable[P, R]) -> Callable[P, R]:
    """Makes a command report expected errors in one line on standard error and exit with code 1."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (FarmError, RedisError, OSError) as error:
            print(f"farm: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapper
