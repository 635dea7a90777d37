"""`./farm sessions`: login sessions of the console."""

import click

from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from shared.api_keys.admin_sessions import AdminSessions


@click.group()
def sessions() -> None:
    """List and end login sessions of the console."""


@sessions.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List the sessions, the last used one first."""
    records = AdminSessions(open_store()[1]).list()
    if as_json:
        print_json([record.model_dump(exclude={"token_digest"}) for record in records])
        return
    print_table(
        ("ID", "TOKEN", "ROLE", "ADDRESS", "LOGIN", "LAST USED"),
        [(r.id, r.token_id, r.role, r.address, format_time(r.created_at), format_time(r.used_at)) for r in records],
    )


@sessions.command()
@click.argument("session_ids", nargs=-1)
@click.option("--all", "ends_all", is_flag=True, help="End all sessions.")
@exit_on_error
def end(session_ids: tuple[str, ...], ends_all: bool) -> None:
    """End sessions: their browsers must log in again."""
    if ends_all == bool(session_ids):
        raise click.UsageError("give session ids, or --all")
    redis = open_store()[1]
    store = AdminSessions(redis)
    if ends_all:
        count = store.end_all()
        record_change(redis, "session.end_all", "", {"sessions": count})
        print_line(f"{count} sessions ended")
    for session_id in session_ids:
        store.end(session_id)
        record_change(redis, "session.end", session_id)
        print_line(f"{session_id} ended")
