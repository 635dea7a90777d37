"""`./farm admin-tokens`: the admin tokens, which open /admin and its API; a new one is printed once."""

import click

from launcher.output import format_time, json_option, print_json, print_line, print_table
from launcher.store import exit_on_error, open_store, record_change
from shared.api_keys.admin_tokens import AdminTokens, Role


@click.group(name="admin-tokens")
def admin_tokens() -> None:
    """Admin tokens: create, list, revoke."""


@admin_tokens.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "viewer"]), default="viewer", show_default=True)
@json_option
@exit_on_error
def create(name: str, role: Role, as_json: bool) -> None:
    """Make an admin token and print it, for the only time. A viewer looks at everything and changes nothing."""
    redis = open_store()[1]
    secret, token = AdminTokens(redis).create(name, role)
    record_change(redis, "token.create", token.id, {"name": name, "role": role})
    if as_json:
        print_json({**token.model_dump(), "token": secret})
    else:
        print_line(secret)


@admin_tokens.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """Every admin token; never the token itself."""
    tokens = AdminTokens(open_store()[1]).list()
    if as_json:
        print_json([one.model_dump() for one in tokens])
        return
    print_table(
        ("ID", "NAME", "ROLE", "TOKEN", "CREATED"),
        [(o.id, o.name, o.role, o.hint, format_time(o.created_at)) for o in tokens],
    )


@admin_tokens.command()
@click.argument("token_ids", nargs=-1, required=True)
@exit_on_error
def revoke(token_ids: tuple[str, ...]) -> None:
    """End admin tokens, and the sessions that they have opened."""
    redis = open_store()[1]
    for token_id in token_ids:
        AdminTokens(redis).revoke(token_id)
        record_change(redis, "token.revoke", token_id)
        print_line(f"{token_id} revoked")
