"""`./farm admin-tokens`: tokens for the console at /admin and the admin API."""

import click

from launcher.lost_output import require_output
from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from shared.api_keys.admin_tokens import AdminTokens, Role


@click.group(name="admin-tokens")
def admin_tokens() -> None:
    """Create, list and revoke admin tokens."""


@admin_tokens.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "viewer"]), default="viewer", show_default=True)
@json_option
@exit_on_error
def create(name: str, role: Role, as_json: bool) -> None:
    """Create an admin token and print it; it is shown only once. A viewer can see everything and change nothing."""
    redis = open_store()[1]
    secret, token = AdminTokens(redis).create(name, role)
    record_change(redis, "token.create", token.id, {"name": name, "role": role})
    if as_json:
        print_json({**token.model_dump(), "token": secret})
    else:
        print_line(secret)
    require_output()


@admin_tokens.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List the admin tokens, without the secrets."""
    tokens = AdminTokens(open_store()[1]).list()
    if as_json:
        print_json([token.model_dump() for token in tokens])
        return
    print_table(
        ("ID", "NAME", "ROLE", "TOKEN", "CREATED"),
        [(token.id, token.name, token.role, token.hint, format_time(token.created_at)) for token in tokens],
    )


@admin_tokens.command()
@click.argument("token_ids", nargs=-1, required=True)
@exit_on_error
def revoke(token_ids: tuple[str, ...]) -> None:
    """Revoke admin tokens and end the sessions opened with them."""
    redis = open_store()[1]
    for token_id in token_ids:
        AdminTokens(redis).revoke(token_id)
        record_change(redis, "token.revoke", token_id)
        print_line(f"{token_id} revoked")
