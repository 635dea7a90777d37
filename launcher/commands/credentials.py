"""`./farm credentials`: refresh tokens in, states shown and set; a token is read from a file or standard input only."""

import sys
from typing import Any

import click

from launcher.caller_paths import resolve_path
from launcher.commands.credential_operations import refresh, revoke, test
from launcher.output import format_time, json_option, print_json, print_line, print_table
from launcher.selection import named, select_pool
from launcher.store import exit_on_error, open_store, record_change
from launcher.token_export import TokenReader
from shared.credentials import private
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.token_import import ImportReport
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError


@click.group()
def credentials() -> None:
    """Refresh tokens: add, import, list, show, test, refresh, disable, enable, revoke, remove, export."""


for by_a_worker in (test, refresh, revoke):
    credentials.add_command(by_a_worker)
pool_option = click.option("--pool", default="default", show_default=True, help="The pool it belongs to.")


@credentials.command()
@pool_option
@click.option("--label", default="", help="A note to recognise it by.")
@json_option
@exit_on_error
def add(pool: str, label: str, as_json: bool) -> None:
    """Add one refresh token, read from standard input (or asked for without echo)."""
    settings, redis = open_store()
    token = click.prompt("Refresh token", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    tokens = token.split()
    if len(tokens) != 1:
        raise FarmError(f"one refresh token is wanted on standard input, not {len(tokens)}; `import` takes many")
    report = Credentials(redis).import_lines(select_pool(settings, pool), tokens, label)
    if report.count("invalid"):
        raise FarmError("that is not a refresh token")
    record_change(redis, "credentials.add", pool, report.to_counts())
    print_report(report, as_json)


@credentials.command(name="import")
@click.argument("file", type=click.Path())
@pool_option
@json_option
@exit_on_error
def import_(file: str, pool: str, as_json: bool) -> None:
    """Import refresh tokens from FILE, one per line ('-' for standard input)."""
    settings, redis = open_store()
    try:
        text = sys.stdin.read() if file == "-" else resolve_path(file).read_text()
    except UnicodeDecodeError:
        raise FarmError(f"{file} is not a text file") from None
    lines = text.splitlines()
    # The bar is for people who wait: standard error, and only on a terminal.
    with click.progressbar(lines, label="importing", file=sys.stderr, hidden=not sys.stderr.isatty()) as watched:
        report = Credentials(redis).import_lines(select_pool(settings, pool), watched)
    record_change(redis, "credentials.add", pool, report.to_counts())
    print_report(report, as_json)


def print_report(report: ImportReport, as_json: bool) -> None:
    """What became of an import."""
    counts = report.to_counts()
    if as_json:
        print_json({**counts, "ids": list(report.ids)})
    else:
        print_line(", ".join(f"{count} {name}" for name, count in counts.items()))


@credentials.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """Every credential and its state."""
    settings, redis = open_store()
    found = Credentials(redis).list(private.list_all_pools(redis, settings.pool_names))
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    headings = ("ID", "POOL", "STATE", "LABEL", "REFRESHED", "ROTATIONS", "REASON", "OWNER")
    print_table(headings, [build_row(one) for one in found])


def build_row(one: CredentialRecord) -> tuple[Any, ...]:
    """A credential in a line."""
    return (
        one.id,
        one.pool,
        one.state,
        one.label or "-",
        format_time(one.refreshed_at),
        one.rotations,
        one.reason or "-",
        one.owner or "-",
    )


@credentials.command()
@click.argument("credential_id")
@json_option
@exit_on_error
def show(credential_id: str, as_json: bool) -> None:
    """One credential; never its token."""
    settings, redis = open_store()
    found = Credentials(redis).get(credential_id, private.list_all_pools(redis, settings.pool_names))
    if as_json:
        print_json(found.to_dict())
        return
    for name, value in found.to_dict().items():
        is_time = name in ("added_at", "refreshed_at", "access_expires", "until", "state_since", "exported_at")
        print_line(f"{name}: {format_time(value) if is_time else value if value != '' else '-'}")


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@exit_on_error
def disable(credential_ids: tuple[str, ...]) -> None:
    """Take credentials out of service until they are enabled again."""
    store, found = named(credential_ids)
    for one in found:
        store.set_state(one.pool, one.id, "disabled", "by a person")
        store.note("credential.disable", one.id)
        print_line(f"{one.id} disabled")


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@exit_on_error
def enable(credential_ids: tuple[str, ...]) -> None:
    """Put credentials into service again, whatever state they are in."""
    store, found = named(credential_ids)
    for one in found:
        store.enable(one.pool, one.id)
        store.note("credential.enable", one.id)
        print_line(f"{one.id} active")


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@exit_on_error
def remove(credential_ids: tuple[str, ...]) -> None:
    """Forget credentials and their tokens."""
    store, found = named(credential_ids)
    for one in found:
        store.forget(one)
        store.note("credential.remove", one.id)
        print_line(f"{one.id} removed")


@credentials.command()
@click.option("--pool", default="", help="Only of this pool.")
@json_option
@exit_on_error
def export(pool: str, as_json: bool) -> None:
    """Print the refresh tokens, one per line, as `import` takes them. KEEP WHAT IT PRINTS SECRET."""
    settings, redis = open_store()
    if sys.stdout.isatty():
        raise FarmError("these are secrets: send them into a file or a pipe, e.g. `| age -e > tokens.age`")
    wanted = [select_pool(settings, pool)] if pool else settings.pool_names
    found = TokenReader(redis, load_unsealer(settings)).all(wanted)
    Credentials(redis).record_export(one["id"] for one in found)
    record_change(redis, "credentials.export", pool or "every pool", {"count": len(found)})
    if as_json:
        print_json(found)
    else:
        click.echo("".join(f"{one['refresh_token']}\n" for one in found), nl=False)
