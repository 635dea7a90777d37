"""`./farm admin-tokens`: the admin tokens, which open /admin and its API; a new one is printed once."""

import click

from launcher.output import as_json, moment, say, show_json, table
from launcher.store import noted, one_line_errors, open_store
from shared.api_keys.admin_tokens import AdminTokens, Role


@click.group(name="admin-tokens")
def admin_tokens() -> None:
    """Admin tokens: create, list, revoke."""


@admin_tokens.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "viewer"]), default="viewer", show_default=True)
@as_json
@one_line_errors
def create(name: str, role: Role, as_json: bool) -> None:
    """Make an admin token and print it, for the only time. A viewer looks at everything and changes nothing."""
    redis = open_store()[1]
    secret, made = AdminTokens(redis).create(name, role)
    noted(redis, "token.create", made.id, {"name": name, "role": role})
    if as_json:
        show_json({**made.model_dump(), "token": secret})
    else:
        say(secret)


@admin_tokens.command(name="list")
@as_json
@one_line_errors
def list_(as_json: bool) -> None:
    """Every admin token; never the token itself."""
    found = AdminTokens(open_store()[1]).list()
    if as_json:
        show_json([one.model_dump() for one in found])
        return
    table(
        ("ID", "NAME", "ROLE", "TOKEN", "CREATED"),
        [(o.id, o.name, o.role, o.hint, moment(o.created_at)) for o in found],
    )


@admin_tokens.command()
@click.argument("token_ids", nargs=-1, required=True)
@one_line_errors
def revoke(token_ids: tuple[str, ...]) -> None:
    """End admin tokens, and the sessions that they have opened."""
    redis = open_store()[1]
    for token_id in token_ids:
        AdminTokens(redis).revoke(token_id)
        noted(redis, "token.revoke", token_id)
        say(f"{token_id} revoked")
