"""`./farm credentials`: refresh tokens in, states shown and set; a token is read from a file or standard input only."""

import sys
from typing import Any

import click

from launcher.context import one_line_errors, open_store
from launcher.files import from_caller
from launcher.output import moment, say, show_json, table
from shared.credentials import CredentialRecord, Credentials, ImportReport
from shared.errors import FarmError
from shared.settings import Settings


@click.group()
def credentials() -> None:
    """Refresh tokens: add, import, list, show, disable, enable, remove."""


def pool_names(settings: Settings) -> list[str]:
    """Every pool's name."""
    return [pool.name for pool in settings.pools]


def chosen(settings: Settings, pool: str) -> str:
    """A pool by its name. Raises FarmError."""
    if pool not in pool_names(settings):
        raise FarmError(f"no pool {pool!r}; there is {', '.join(pool_names(settings))}")
    return pool


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
in_pool = click.option("--pool", default="default", show_default=True, help="The pool it belongs to.")


@credentials.command()
@in_pool
@click.option("--label", default="", help="A note to recognise it by.")
@as_json
@one_line_errors
def add(pool: str, label: str, as_json: bool) -> None:
    """Add one refresh token, read from standard input (or asked for without echo)."""
    settings, redis = open_store()
    token = click.prompt("Refresh token", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    tokens = token.split()
    if len(tokens) != 1:
        raise FarmError(f"one refresh token is wanted on standard input, not {len(tokens)}; `import` takes many")
    report = Credentials(redis).import_lines(chosen(settings, pool), tokens, label)
    if report.invalid:
        raise FarmError("that is not a refresh token")
    show_report(report, as_json)


@credentials.command(name="import")
@click.argument("file", type=click.Path())
@in_pool
@as_json
@one_line_errors
def import_(file: str, pool: str, as_json: bool) -> None:
    """Import refresh tokens from FILE, one per line ('-' for standard input)."""
    settings, redis = open_store()
    try:
        text = sys.stdin.read() if file == "-" else from_caller(file).read_text()
    except UnicodeDecodeError:
        raise FarmError(f"{file} is not a text file") from None
    show_report(Credentials(redis).import_lines(chosen(settings, pool), text.splitlines()), as_json)


def show_report(report: ImportReport, as_json: bool) -> None:
    """What became of an import."""
    counts = {
        "added": report.added,
        "duplicates": report.duplicates,
        "blanks": report.blanks,
        "invalid": report.invalid,
    }
    if as_json:
        show_json({**counts, "ids": list(report.ids)})
    else:
        say(", ".join(f"{count} {name}" for name, count in counts.items()))


@credentials.command(name="list")
@as_json
@one_line_errors
def list_(as_json: bool) -> None:
    """Every credential and its state."""
    settings, redis = open_store()
    found = Credentials(redis).list(pool_names(settings))
    if as_json:
        show_json([one.as_dict() for one in found])
        return
    headings = ("ID", "POOL", "STATE", "LABEL", "REFRESHED", "ROTATIONS", "REASON", "OWNER")
    table(headings, [row(one) for one in found])


def row(one: CredentialRecord) -> tuple[Any, ...]:
    """A credential in a line."""
    return (
        one.id,
        one.pool,
        one.state,
        one.label or "-",
        moment(one.refreshed_at),
        one.rotations,
        one.reason or "-",
        one.owner or "-",
    )


@credentials.command()
@click.argument("credential_id")
@as_json
@one_line_errors
def show(credential_id: str, as_json: bool) -> None:
    """One credential; never its token."""
    settings, redis = open_store()
    found = Credentials(redis).find(credential_id, pool_names(settings))
    if as_json:
        show_json(found.as_dict())
        return
    for name, value in found.as_dict().items():
        is_time = name in ("added_at", "refreshed_at", "access_expires", "until", "state_since")
        say(f"{name}: {moment(value) if is_time else value if value != '' else '-'}")


def named(credential_ids: tuple[str, ...]) -> tuple[Credentials, list[CredentialRecord]]:
    """The store, and the credentials of these ids. Raises NotFound before anything is changed."""
    settings, redis = open_store()
    store = Credentials(redis)
    return store, [store.find(credential_id, pool_names(settings)) for credential_id in credential_ids]


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@one_line_errors
def disable(credential_ids: tuple[str, ...]) -> None:
    """Take credentials out of service until they are enabled again."""
    store, found = named(credential_ids)
    for one in found:
        store.move(one.pool, one.id, "disabled", "by a person")
        say(f"{one.id} disabled")


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@one_line_errors
def enable(credential_ids: tuple[str, ...]) -> None:
    """Put credentials into service again, whatever state they are in."""
    store, found = named(credential_ids)
    for one in found:
        store.enable(one.pool, one.id)
        say(f"{one.id} active")


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@one_line_errors
def remove(credential_ids: tuple[str, ...]) -> None:
    """Forget credentials and their tokens."""
    store, found = named(credential_ids)
    for one in found:
        store.remove(one.pool, one.id)
        say(f"{one.id} removed")
