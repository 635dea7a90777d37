"""`./farm usage`, `requests` and `audit`: who used what, what became of each request, who changed what."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from launcher.output import as_json, moment, show_json, table
from launcher.store import one_line_errors, open_store
from launcher.time_option import WHEN
from shared.errors import BadField
from shared.observability.audit_log import AuditLog
from shared.observability.request_log import LogFilter, RequestLog, StoredEntry
from shared.observability.usage import METRICS, SumsQuery, UsageSums

F = TypeVar("F", bound=Callable[..., Any])
DAY = 86_400
GROUPS = ("time", "key", "pool", "model", "credential")
since = click.option("--since", type=WHEN, help="From when on: a date, seconds since the epoch, or e.g. 2h, 7d ago.")
until = click.option("--until", type=WHEN, help="Until when.")


def only(*names: str) -> Callable[[F], F]:
    """An option for each name: the only value that counts."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name}", default="", help=f"Only of this {name}.")(command)
        return command

    return decorate


@click.command()
@click.option("--by", default="key", show_default=True, help="What the rows are of, with commas: " + ", ".join(GROUPS))
@click.option("--step", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="Which sums.")
@since
@until
@only("key", "pool", "model", "credential")
@as_json
@one_line_errors
def usage(by: str, step: str, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """What was used, of the last day unless --since says otherwise."""
    groups = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    wanted = {name: value for name, value in names.items() if value}
    if unknown := set(groups) - set(GROUPS):
        raise BadField("by", f"{unknown.pop()!r} is none of {', '.join(GROUPS)}")
    if "credential" in {*groups, *wanted} and {"key", "model"} & {*groups, *wanted}:
        raise BadField("by", "credential goes with time and pool only")
    end = until or time.time()
    rows = UsageSums(open_store()[1]).query(SumsQuery(since or end - DAY, end, step, groups, wanted))
    if as_json:
        show_json(rows)
        return
    columns = (*groups, *METRICS, "total_tokens")
    shown = [[moment(row[name]) if name == "time" else row[name] for name in columns] for row in rows]
    table([name.upper().replace("_", " ") for name in columns], shown)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Most entries.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@since
@until
@only("request", "key", "pool", "model", "credential", "code")
@as_json
@one_line_errors
def requests(limit: int, failed: bool, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """The request log, newest first; no prompt and no answer is in it."""
    wanted = LogFilter(since or 0.0, until or float("inf"), outcome="failed" if failed else "", **names)
    found = [one for one, _ in zip(RequestLog(open_store()[1]).read_newest_first(wanted), range(limit), strict=False)]
    if as_json:
        show_json([one.to_dict() for one in found])
        return
    headings = ("TIME", "REQUEST", "KEY", "MODEL", "STATUS", "TRIES", "QUEUED", "FIRST", "TOTAL MS", "TOKENS", "END")
    table(headings, [row(one) for one in found])


def row(one: StoredEntry) -> tuple[Any, ...]:
    """An entry in a line; tokens that were counted here are marked."""
    entry = one.entry
    tokens = f"{'~' if entry.estimated else ''}{entry.prompt_tokens}+{entry.completion_tokens}"
    end = entry.code or entry.end or "-"
    times = (entry.queue_ms, entry.first_ms, entry.total_ms)
    model = entry.model or "-"
    return (moment(one.time), entry.request, entry.key, model, entry.status, entry.attempts, *times, tokens, end)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Most entries.")
@as_json
@one_line_errors
def audit(limit: int, as_json: bool) -> None:
    """What operators have changed, newest first."""
    found = [one for one, _ in zip(AuditLog(open_store()[1]).read_newest_first(), range(limit), strict=False)]
    if as_json:
        show_json([one.model_dump() for one in found])
        return
    rows = [(moment(one.time), one.who, one.action, one.target, one.details or "-") for one in found]
    table(("TIME", "WHO", "ACTION", "TARGET", "DETAILS"), rows)
