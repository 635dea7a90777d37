"""`./farm usage`, `requests`, `audit` and `events`: usage sums, the request log, the audit log and the time line."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

import click

from launcher.output import exit_on_error, format_time, json_option, print_json, print_table
from launcher.store import open_store
from launcher.time_option import TIME
from shared.errors import BadField
from shared.observability.audit_log import AuditLog
from shared.observability.event_log import EventFilter, read_events
from shared.observability.names_by_id import NAMED_FIELDS, name_rows
from shared.observability.request_log import LogFilter, RequestLog, StoredEntry
from shared.observability.usage import METRICS, SumsQuery, UsageSums

F = TypeVar("F", bound=Callable[..., Any])
DAY_SECONDS = 86_400
GROUP_COLUMNS = ("time", "key", "pool", "model", "credential")
#: Columns of the request log.
HEADINGS = (
    *("TIME", "REQUEST", "KEY", "CREDENTIAL", "MODEL", "STATUS", "TRIES", "QUEUED", "FIRST", "TOTAL MS"),
    *("TOKENS", "END"),
)
since_option = click.option(
    "--since", type=TIME, help="Start: a date, seconds since the epoch, or an age such as 2h or 7d."
)
until_option = click.option("--until", type=TIME, help="End, in the same forms.")


def filter_options(*names: str) -> Callable[[F], F]:
    """Gives a command a filter option for each name; '' means no filter."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name}", default="", help=f"Only this {name}.")(command)
        return command

    return decorate


@click.command()
@click.option(
    "--by",
    default="key",
    show_default=True,
    help="Columns to group by, separated by commas: " + ", ".join(GROUP_COLUMNS),
)
@click.option(
    "--step", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="Length of one sum's period."
)
@since_option
@until_option
@filter_options("key", "pool", "model", "credential")
@json_option
@exit_on_error
def usage(by: str, step: str, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """Show usage, of the last day unless --since is given."""
    groups = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    filters = {name: value for name, value in names.items() if value}
    if unknown := set(groups) - set(GROUP_COLUMNS):
        raise BadField("by", f"{unknown.pop()!r} is not one of {', '.join(GROUP_COLUMNS)}")
    if "credential" in {*groups, *filters} and {"key", "model"} & {*groups, *filters}:
        raise BadField("by", "credential can be combined with time and pool only")
    end = until or time.time()
    redis = open_store()[1]
    sums = UsageSums(redis).query(SumsQuery(since or end - DAY_SECONDS, end, step, groups, filters))
    rows = list(name_rows(redis, sums))
    if as_json:
        print_json(rows)
        return
    names_beside = [each for name in groups for each in ((name, f"{name}_name") if name in NAMED_FIELDS else (name,))]
    columns = (*names_beside, *METRICS, "total_tokens")
    cells = [
        [format_time(row[name]) if name == "time" else "-" if row[name] == "" else row[name] for name in columns]
        for row in rows
    ]
    print_table([name.upper().replace("_", " ") for name in columns], cells)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Maximum number of entries.")
@click.option("--failed", is_flag=True, help="Only failed requests.")
@since_option
@until_option
@filter_options("request", "key", "pool", "model", "credential", "code")
@json_option
@exit_on_error
def requests(limit: int, failed: bool, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """Show the request log, newest first; it contains no prompts and no responses."""
    log_filter = LogFilter(since or 0.0, until or float("inf"), outcome="failed" if failed else "", **names)
    redis = open_store()[1]
    entries = list(islice(RequestLog(redis).read_newest_first(log_filter), max(limit, 0)))
    rows = list(name_rows(redis, (entry.to_json() for entry in entries)))
    if as_json:
        print_json(rows)
        return
    print_table(HEADINGS, [build_row(entry, row) for entry, row in zip(entries, rows, strict=True)])


def build_row(stored: StoredEntry, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the cells of an entry; '~' marks estimated tokens, x a number of refused requests."""
    entry = stored.entry
    tokens = f"{'~' if entry.estimated else ''}{entry.prompt_tokens}+{entry.completion_tokens}"
    end = (entry.code or entry.end or "-") + (f" x{stored.count}" if stored.count > 1 else "")
    times = (entry.queue_ms, entry.first_ms, entry.total_ms)
    model = entry.model or "-"
    return (
        format_time(stored.time),
        entry.request,
        describe(entry.key, named["key_name"]),
        describe(entry.credential, named["credential_name"]),
        model,
        entry.status,
        entry.attempts,
        *times,
        tokens,
        end,
    )


def describe(id_: str, name: str) -> str:
    """An id with its name, '-' for none."""
    return f"{id_} {name}".rstrip() or "-"


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Maximum number of entries.")
@json_option
@exit_on_error
def audit(limit: int, as_json: bool) -> None:
    """Show what operators have changed, newest first."""
    entries = list(islice(AuditLog(open_store()[1]).read_newest_first(), max(limit, 0)))
    if as_json:
        print_json([entry.model_dump() for entry in entries])
        return
    rows = [(format_time(entry.time), entry.who, entry.action, entry.target, entry.details or "-") for entry in entries]
    print_table(("TIME", "WHO", "ACTION", "TARGET", "DETAILS"), rows)


@click.command()
@click.option("--limit", "-n", default=50, show_default=True, help="Maximum number of events.")
@since_option
@until_option
@filter_options("kind", "pool", "credential")
@json_option
@exit_on_error
def events(limit: int, since: float | None, until: float | None, as_json: bool, **names: str) -> None:
    """Show what happened to accounts, upstreams, processes and Redis, and what operators changed, newest first."""
    event_filter = EventFilter(since or 0.0, until or float("inf"), **names)
    redis = open_store()[1]
    found = list(islice(read_events(redis, event_filter), max(limit, 0)))
    named = list(name_rows(redis, (asdict(event) for event in found)))
    if as_json:
        print_json(named)
        return
    rows = [
        (
            *(format_time(event.time), event.kind, event.pool or "-"),
            event.target or describe(event.credential, row["credential_name"]),
            *(event.reason or "-", event.who or event.message or "-"),
        )
        for event, row in zip(found, named, strict=True)
    ]
    print_table(("TIME", "EVENT", "POOL", "WHAT", "REASON", "DETAILS"), rows)
