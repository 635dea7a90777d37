"""`./farm keys`: the farm's own API keys; a new one is printed once."""

import click

from launcher.context import one_line_errors, open_store
from launcher.credentials import as_json
from launcher.output import moment, say, show_json, table
from shared.api_keys import ApiKey, ApiKeys
from shared.errors import NotFound


@click.group()
def keys() -> None:
    """API keys: create, list, show, revoke."""


def find(store: ApiKeys, key_id: str) -> ApiKey:
    """A key by its id. Raises NotFound."""
    for key in store.list():
        if key.id == key_id:
            return key
    raise NotFound(f"no API key {key_id!r}")


@keys.command()
@click.option("--name", default="", help="A name to recognise it by.")
@as_json
@one_line_errors
def create(name: str, as_json: bool) -> None:
    """Make a key and print it, for the only time."""
    secret, key = ApiKeys(open_store()[1]).create(name)
    if as_json:
        show_json({**key.as_dict(), "key": secret})
    else:
        say(secret)


@keys.command(name="list")
@as_json
@one_line_errors
def list_(as_json: bool) -> None:
    """Every key; only its first and last characters."""
    found = ApiKeys(open_store()[1]).list()
    if as_json:
        show_json([key.as_dict() for key in found])
        return
    rows = [(k.id, k.name or "-", k.hint, moment(k.created_at), "yes" if k.enabled else "revoked") for k in found]
    table(("ID", "NAME", "KEY", "CREATED", "ENABLED"), rows)


@keys.command()
@click.argument("key_id")
@as_json
@one_line_errors
def show(key_id: str, as_json: bool) -> None:
    """One key's record."""
    found = find(ApiKeys(open_store()[1]), key_id)
    if as_json:
        show_json(found.as_dict())
        return
    for name, value in found.as_dict().items():
        say(f"{name}: {moment(value) if name.endswith('_at') else value}")


@keys.command()
@click.argument("key_ids", nargs=-1, required=True)
@one_line_errors
def revoke(key_ids: tuple[str, ...]) -> None:
    """End keys for good; requests with them are refused within a second."""
    store = ApiKeys(open_store()[1])
    for key in [find(store, key_id) for key_id in key_ids]:
        store.revoke(key.id)
        say(f"{key.id} revoked")
