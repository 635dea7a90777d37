"""`./farm keys`: the farm's own API keys; a new one is printed once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from launcher.output import format_time, json_option, print_json, print_line, print_table
from launcher.store import exit_on_error, open_store, record_change
from launcher.time_option import TIME
from shared.api_keys.api_key import ApiKey, KeyFields
from shared.api_keys.store import ApiKeys
from shared.errors import BadField

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """API keys: create, list, show, update, revoke."""


def field_options(command: F) -> F:
    """Gives a command an option for each field of a key; one that is not given is None."""
    for name, field in reversed(KeyFields.model_fields.items()):
        if name == "enabled":
            option = click.option("--enable/--disable", name, default=None, help="Whether requests may use it.")
        else:
            help_ = f"{(field.description or name)[0].upper()}{(field.description or name)[1:]}."
            kind = TIME if name == "expires_at" else None
            option = click.option(f"--{name.replace('_', '-').removesuffix('-at')}", name, type=kind, help=help_)
        command = option(command)
    return command


def collect_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given, lists split at commas. Raises BadField."""
    found = {name: value for name, value in fields.items() if value is not None}
    for name in ("pools", "models", "networks"):
        if name in found:
            found[name] = [part.strip() for part in found[name].split(",") if part.strip()]
    return found


@keys.command()
@field_options
@json_option
@exit_on_error
def create(as_json: bool, **fields: Any) -> None:
    """Make a key and print it, for the only time."""
    redis, wanted = open_store()[1], collect_fields(fields)
    secret, key = ApiKeys(redis).create(**wanted)
    record_change(redis, "key.create", key.id, wanted)
    if as_json:
        print_json({**key.to_dict(), "key": secret})
    else:
        print_line(secret)


@keys.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """Every key; only its first and last characters."""
    found = ApiKeys(open_store()[1]).list()
    if as_json:
        print_json([key.to_dict() for key in found])
        return
    headings = ("ID", "NAME", "KEY", "CREATED", "STATE", "BAND", "WEIGHT", "LIMITS")
    print_table(headings, [build_row(key) for key in found])


def build_row(key: ApiKey) -> tuple[Any, ...]:
    """A key in a line."""
    limits = ("concurrency", "rpm", "tpm", "quota_tokens", "quota_requests")
    words = ", ".join(f"{name} {getattr(key, name)}" for name in limits if getattr(key, name))
    return (
        key.id,
        key.name or "-",
        key.hint,
        format_time(key.created_at),
        describe_state(key),
        key.band,
        f"{key.weight:g}",
        words or "-",
    )


def describe_state(key: ApiKey) -> str:
    """Whether a key can be used, in a word."""
    if key.revoked_at:
        return "revoked"
    if key.is_expired:
        return "expired"
    return "enabled" if key.enabled else "disabled"


@keys.command()
@click.argument("key_id")
@json_option
@exit_on_error
def show(key_id: str, as_json: bool) -> None:
    """One key's record."""
    print_key(ApiKeys(open_store()[1]).get(key_id), as_json)


def print_key(key: ApiKey, as_json: bool) -> None:
    """A record, a line a fact."""
    if as_json:
        print_json(key.to_dict())
        return
    for name, value in key.to_dict().items():
        words = ", ".join(value) if isinstance(value, list) else value
        print_line(f"{name}: {format_time(value) if name.endswith('_at') else '-' if words == '' else words}")


@keys.command()
@click.argument("key_id")
@field_options
@json_option
@exit_on_error
def update(key_id: str, as_json: bool, **fields: Any) -> None:
    """Change a key; in force everywhere within two seconds. A limit of 0 and an empty list take one away."""
    changes = collect_fields(fields)
    if not changes:
        raise BadField("", "nothing to change: give at least one option")
    redis = open_store()[1]
    changed = ApiKeys(redis).update(key_id, changes)
    record_change(redis, "key.update", key_id, changes)
    print_key(changed, as_json)


@keys.command()
@click.argument("key_ids", nargs=-1, required=True)
@exit_on_error
def revoke(key_ids: tuple[str, ...]) -> None:
    """End keys for good; requests with them are refused within a second."""
    redis = open_store()[1]
    store = ApiKeys(redis)
    for key in [store.get(key_id) for key_id in key_ids]:
        store.revoke(key.id)
        record_change(redis, "key.revoke", key.id)
        print_line(f"{key.id} revoked")
