"""`./farm keys`: the farm's own API keys; a new one is printed once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from launcher.output import as_json, moment, say, show_json, table
from launcher.store import noted, one_line_errors, open_store
from launcher.time_option import WHEN
from shared.api_keys.api_key import ApiKey, KeyFields
from shared.api_keys.store import ApiKeys
from shared.errors import BadField

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """API keys: create, list, show, update, revoke."""


def with_fields(command: F) -> F:
    """Gives a command an option for each field of a key; one that is not given is None."""
    for name, field in reversed(KeyFields.model_fields.items()):
        if name == "enabled":
            option = click.option("--enable/--disable", name, default=None, help="Whether requests may use it.")
        else:
            help_ = f"{(field.description or name)[0].upper()}{(field.description or name)[1:]}."
            kind = WHEN if name == "expires_at" else None
            option = click.option(f"--{name.replace('_', '-').removesuffix('-at')}", name, type=kind, help=help_)
        command = option(command)
    return command


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given, lists split at commas. Raises BadField."""
    found = {name: value for name, value in fields.items() if value is not None}
    for name in ("pools", "models", "networks"):
        if name in found:
            found[name] = [part.strip() for part in found[name].split(",") if part.strip()]
    return found


@keys.command()
@with_fields
@as_json
@one_line_errors
def create(as_json: bool, **fields: Any) -> None:
    """Make a key and print it, for the only time."""
    redis, wanted = open_store()[1], given(fields)
    secret, key = ApiKeys(redis).create(**wanted)
    noted(redis, "key.create", key.id, wanted)
    if as_json:
        show_json({**key.to_dict(), "key": secret})
    else:
        say(secret)


@keys.command(name="list")
@as_json
@one_line_errors
def list_(as_json: bool) -> None:
    """Every key; only its first and last characters."""
    found = ApiKeys(open_store()[1]).list()
    if as_json:
        show_json([key.to_dict() for key in found])
        return
    headings = ("ID", "NAME", "KEY", "CREATED", "STATE", "BAND", "WEIGHT", "LIMITS")
    table(headings, [row(key) for key in found])


def row(key: ApiKey) -> tuple[Any, ...]:
    """A key in a line."""
    limits = ("concurrency", "rpm", "tpm", "quota_tokens", "quota_requests")
    words = ", ".join(f"{name} {getattr(key, name)}" for name in limits if getattr(key, name))
    return (
        key.id,
        key.name or "-",
        key.hint,
        moment(key.created_at),
        state(key),
        key.band,
        f"{key.weight:g}",
        words or "-",
    )


def state(key: ApiKey) -> str:
    """Whether a key can be used, in a word."""
    if key.revoked_at:
        return "revoked"
    if key.is_expired:
        return "expired"
    return "enabled" if key.enabled else "disabled"


@keys.command()
@click.argument("key_id")
@as_json
@one_line_errors
def show(key_id: str, as_json: bool) -> None:
    """One key's record."""
    show_key(ApiKeys(open_store()[1]).get(key_id), as_json)


def show_key(key: ApiKey, as_json: bool) -> None:
    """A record, a line a fact."""
    if as_json:
        show_json(key.to_dict())
        return
    for name, value in key.to_dict().items():
        words = ", ".join(value) if isinstance(value, list) else value
        say(f"{name}: {moment(value) if name.endswith('_at') else '-' if words == '' else words}")


@keys.command()
@click.argument("key_id")
@with_fields
@as_json
@one_line_errors
def update(key_id: str, as_json: bool, **fields: Any) -> None:
    """Change a key; in force everywhere within two seconds. A limit of 0 and an empty list take one away."""
    changes = given(fields)
    if not changes:
        raise BadField("", "nothing to change: give at least one option")
    redis = open_store()[1]
    changed = ApiKeys(redis).update(key_id, changes)
    noted(redis, "key.update", key_id, changes)
    show_key(changed, as_json)


@keys.command()
@click.argument("key_ids", nargs=-1, required=True)
@one_line_errors
def revoke(key_ids: tuple[str, ...]) -> None:
    """End keys for good; requests with them are refused within a second."""
    redis = open_store()[1]
    store = ApiKeys(redis)
    for key in [store.get(key_id) for key_id in key_ids]:
        store.revoke(key.id)
        noted(redis, "key.revoke", key.id)
        say(f"{key.id} revoked")
