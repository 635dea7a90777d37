"""`./farm usage`, `requests` and `audit`: who used what, what became of each request, who changed what."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from launcher.output import format_time, json_option, print_json, print_table
from launcher.store import exit_on_error, open_store
from launcher.time_option import TIME
from shared.errors import BadField
from shared.observability.audit_log import AuditLog
from shared.observability.request_log import LogFilter, RequestLog, StoredEntry
from shared.observability.usage import METRICS, SumsQuery, UsageSums

F = TypeVar("F", bound=Callable[..., Any])
DAY_SECONDS = 86_400
GROUP_COLUMNS = ("time", "key", "pool", "model", "credential")
since_option = click.option(
    "--since", type=TIME, help="From when on: a date, seconds since the epoch, or e.g. 2h, 7d ago."
)
until_option = click.option("--until", type=TIME, help="Until when.")


def filter_options(*names: str) -> Callable[[F], F]:
    """An option for each name: the only value that counts."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name}", default="", help=f"Only of this {name}.")(command)
        return command

    return decorate


@click.command()
@click.option(
    "--by", default="key", show_default=True, help="What the rows are of, with commas: " + ", ".join(GROUP_COLUMNS)
)
@click.option("--step", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="Which sums.")
@since_option
@until_option
@filter_options("key", "pool", "model", "credential")
@json_option
@exit_on_error
def usage(by: str, step: str, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """What was used, of the last day unless --since says otherwise."""
    groups = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    wanted = {name: value for name, value in names.items() if value}
    if unknown := set(groups) - set(GROUP_COLUMNS):
        raise BadField("by", f"{unknown.pop()!r} is none of {', '.join(GROUP_COLUMNS)}")
    if "credential" in {*groups, *wanted} and {"key", "model"} & {*groups, *wanted}:
        raise BadField("by", "credential goes with time and pool only")
    end = until or time.time()
    rows = UsageSums(open_store()[1]).query(SumsQuery(since or end - DAY_SECONDS, end, step, groups, wanted))
    if as_json:
        print_json(rows)
        return
    columns = (*groups, *METRICS, "total_tokens")
    shown = [[format_time(row[name]) if name == "time" else row[name] for name in columns] for row in rows]
    print_table([name.upper().replace("_", " ") for name in columns], shown)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Most entries.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@since_option
@until_option
@filter_options("request", "key", "pool", "model", "credential", "code")
@json_option
@exit_on_error
def requests(limit: int, failed: bool, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """The request log, newest first; no prompt and no answer is in it."""
    wanted = LogFilter(since or 0.0, until or float("inf"), outcome="failed" if failed else "", **names)
    found = [one for one, _ in zip(RequestLog(open_store()[1]).read_newest_first(wanted), range(limit), strict=False)]
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    headings = ("TIME", "REQUEST", "KEY", "MODEL", "STATUS", "TRIES", "QUEUED", "FIRST", "TOTAL MS", "TOKENS", "END")
    print_table(headings, [build_row(one) for one in found])


def build_row(one: StoredEntry) -> tuple[Any, ...]:
    """An entry in a line; tokens that were counted here are marked."""
    entry = one.entry
    tokens = f"{'~' if entry.estimated else ''}{entry.prompt_tokens}+{entry.completion_tokens}"
    end = entry.code or entry.end or "-"
    times = (entry.queue_ms, entry.first_ms, entry.total_ms)
    model = entry.model or "-"
    return (format_time(one.time), entry.request, entry.key, model, entry.status, entry.attempts, *times, tokens, end)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Most entries.")
@json_option
@exit_on_error
def audit(limit: int, as_json: bool) -> None:
    """What operators have changed, newest first."""
    found = [one for one, _ in zip(AuditLog(open_store()[1]).read_newest_first(), range(limit), strict=False)]
    if as_json:
        print_json([one.model_dump() for one in found])
        return
    rows = [(format_time(one.time), one.who, one.action, one.target, one.details or "-") for one in found]
    print_table(("TIME", "WHO", "ACTION", "TARGET", "DETAILS"), rows)
