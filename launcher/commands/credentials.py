"""`./farm credentials`: imports, shows and changes credentials.

Refresh tokens are read from a file or standard input, never from the command line, which other users can see.
"""

import json
import os
import sys
from dataclasses import asdict

import click

from launcher.commands.credential_limits import limit
from launcher.commands.credential_login import login
from launcher.commands.credential_operations import refresh, revoke, test
from launcher.commands.credential_states import adopt, disable, drain, enable
from launcher.export_steps import ExportSteps
from launcher.file_argument import resolve_path
from launcher.lost_output import require_output
from launcher.output import exit_on_error, json_option, print_json, print_line, print_table
from launcher.selection import select_credentials, select_pool
from launcher.store import COMMAND_LINE, open_store, record_change
from launcher.token_export import export_tokens
from launcher.views.credential import list_facts, render_page
from launcher.views.credential_list import HEADINGS, build_row, drop_empty_columns
from shared import clock
from shared.credentials import private
from shared.credentials.activity.description import describe_credentials
from shared.credentials.importing.entries import read_entries
from shared.credentials.importing.report import ImportReport
from shared.credentials.kinds import KIND_NAMES
from shared.credentials.store import Credentials
from shared.credentials.token_origin import origin_for_new_tokens
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError

#: State changes that `show` prints, the newest first.
MAX_HISTORY_SHOWN = 20
#: Outcome of an entry -> what a preview says of it.
PREVIEWS = {"added": "would be added", "duplicate": "is here already", "replaced": "would replace an older secret"}


@click.group()
def credentials() -> None:
    """Add, import, log in, list, show, test, refresh, limit, disable, drain, enable, adopt, revoke, remove, export."""


for command in (login, test, refresh, revoke, limit, disable, drain, enable, adopt):
    credentials.add_command(command)
pool_option = click.option("--pool", default="default", show_default=True, help="The pool to import into.")


@credentials.command()
@pool_option
@click.option("--label", default="", help="A note to recognise the credential by.")
@json_option
@exit_on_error
def add(pool: str, label: str, as_json: bool) -> None:
    """Add one credential of the pool's kind, read from standard input, or prompted for without echo on a terminal."""
    settings, redis = open_store()
    pool_settings = settings.pool(select_pool(settings, pool))
    kind, name = pool_settings.credential_kind, KIND_NAMES[pool_settings.credential_kind]
    prompt = name[0].upper() + name[1:]
    text = click.prompt(prompt, hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    entries = [entry for entry in read_entries(text.splitlines(), kind) if entry.outcome != "blank"]
    if len(entries) != 1:
        raise FarmError(f"expected one {name} on standard input, got {len(entries)}; use `import` for several")
    report = Credentials(redis).import_entries(pool, entries, label, origin_for_new_tokens(pool_settings), kind)
    if report.invalid:
        raise FarmError(f"not a valid {name}: {report.invalid[0].reason}")
    record_change(redis, "credentials.add", pool, report.to_counts())
    print_report(report, as_json)


@credentials.command(name="import")
@click.argument("file", type=click.Path())
@pool_option
@click.option("--dry-run", is_flag=True, help="Only show what would be imported.")
@json_option
@exit_on_error
def import_(file: str, pool: str, dry_run: bool, as_json: bool) -> None:
    """Import credentials of the pool's kind from FILE ('-' for standard input).

    One per line, alone, as `refresh_token=…` or `user----password----token`; or as JSON, JSON lines, or
    CSV with a header. Passwords and whatever else is beside the tokens are not stored.
    """
    settings, redis = open_store()
    pool_settings = settings.pool(select_pool(settings, pool))
    kind = pool_settings.credential_kind
    entries = list(read_entries(read_text(file).splitlines(), kind))
    if dry_run:
        print_report(Credentials(redis).preview_import(pool, entries, kind), as_json, is_preview=True)
        return
    with click.progressbar(entries, label="importing", file=sys.stderr, hidden=not sys.stderr.isatty()) as progress:
        report = Credentials(redis).import_entries(pool, progress, "", origin_for_new_tokens(pool_settings), kind)
    record_change(redis, "credentials.add", pool, report.to_counts())
    print_report(report, as_json)


def read_text(file: str) -> str:
    """The text of a file, '-' for standard input. Raises FarmError, OSError."""
    try:
        return sys.stdin.read() if file == "-" else resolve_path(file).read_text()
    except UnicodeDecodeError:
        raise FarmError(f"{file} is not a text file") from None


def print_report(report: ImportReport, as_json: bool, *, is_preview: bool = False) -> None:
    """Prints the counts, and to standard error why entries are invalid; a preview, what would become of each."""
    counts = report.to_counts()
    if as_json:
        invalid = [{"line": line.number, "reason": line.reason} for line in report.invalid]
        print_json({**counts, "ids": list(report.new_ids), "invalid_lines": invalid, "dry_run": is_preview})
        return
    for line in report.lines:
        if line.outcome == "invalid":
            print(f"line {line.number}: invalid: {line.reason}", file=sys.stderr)
        elif is_preview and line.outcome != "blank":
            print_line(f"line {line.number}: {PREVIEWS[line.outcome]}")
    summary = ", ".join(f"{count} {name}" for name, count in counts.items())
    print_line(f"{summary}; nothing was changed" if is_preview else summary)


@credentials.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List the credentials and their states."""
    settings, redis = open_store()
    records = Credentials(redis).list(private.list_all_pools(redis, settings.pool_names))
    descriptions = describe_credentials(redis, records, settings.pools)
    if as_json:
        print_json([description.to_dict(is_masked=True) for description in descriptions])
        return
    is_short = sys.stdout.isatty()
    rows = [build_row(description, clock.now(), is_short=is_short) for description in descriptions]
    print_table(*(drop_empty_columns(HEADINGS, rows) if is_short else (HEADINGS, rows)))


@credentials.command()
@click.argument("credential_id")
@json_option
@exit_on_error
def show(credential_id: str, as_json: bool) -> None:
    """Show a credential, without its token.

    Why it is in its state and what happens next, what it has done in the last hour, what its account has left, its last
    refresh, rotation and test, and its former states.
    """
    settings, redis = open_store()
    (record,) = select_credentials(settings, redis, [credential_id])
    (description,) = describe_credentials(redis, [record], settings.pools)
    history = Credentials(redis).get_history(record.id)[:MAX_HISTORY_SHOWN]
    if as_json:
        print_json({**description.to_dict(), "history": [asdict(change) for change in history]})
    elif sys.stdout.isatty():
        page = render_page(description, history, clock.now())
        print_line(click.unstyle(page) if os.environ.get("NO_COLOR") else page)
    else:
        print_line("\n".join(list_facts(description, history)))


@credentials.command()
@click.argument("credential_ids", nargs=-1, required=True)
@exit_on_error
def remove(credential_ids: tuple[str, ...]) -> None:
    """Delete credentials and their tokens from the farm."""
    settings, redis = open_store()
    for record in select_credentials(settings, redis, credential_ids):
        private.remove_credential(redis, record.pool, record.id, COMMAND_LINE)
        record_change(redis, "credential.remove", record.id)
        print_line(f"{record.id} removed")


@credentials.command()
@click.option("--pool", default="", help="Only this pool.")
@json_option
@exit_on_error
def export(pool: str, as_json: bool) -> None:
    """Print the refresh tokens, one per line, as `import` reads them. KEEP THE OUTPUT SECRET."""
    settings, redis = open_store()
    if sys.stdout.isatty():
        raise FarmError("the tokens are secret: redirect them to a file or a pipe, e.g. `| age -e > tokens.age`")
    pools = [select_pool(settings, pool)] if pool else settings.pool_names
    with ExportSteps(Credentials(redis), pools) as steps:
        steps.record_export()
        exported = export_tokens(redis, load_unsealer(settings), pools)
        lines = "".join(f"{credential['refresh_token']}\n" for credential in exported)
        click.echo(json.dumps(exported, indent=2, ensure_ascii=False) if as_json else lines, nl=as_json)
        require_output()
    record_change(redis, "credentials.export", pool or "every pool", {"count": len(exported)})
    steps.warn_of_rotations()
