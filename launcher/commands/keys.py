"""`./farm keys`: the API keys that the farm issues to callers."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from launcher.lost_output import require_output
from launcher.number_option import NumberRange
from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from launcher.time_option import TIME
from shared.api_keys.api_key import ApiKey, KeyFields
from shared.api_keys.store import ApiKeys
from shared.errors import BadField
from shared.protocol.changed_limits import apply_limits

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """Create, list, show, update, rotate and revoke API keys."""


def field_options(command: F) -> F:
    """Gives a command an option for each field of a key; an option that is not given is None."""
    for name, field in reversed(KeyFields.model_fields.items()):
        if name == "enabled":
            option = click.option("--enable/--disable", name, default=None, help="Whether the key is accepted.")
        else:
            text = field.description or name
            flag = f"--{name.replace('_', '-').removesuffix('-at')}"
            value_type = TIME if name == "expires_at" else None
            option = click.option(flag, name, type=value_type, help=f"{text[0].upper()}{text[1:]}.")
        command = option(command)
    return command


def collect_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields whose options were given, with lists split at commas."""
    fields = {name: value for name, value in options.items() if value is not None}
    for name in ("pools", "models", "networks"):
        if name in fields:
            fields[name] = [part.strip() for part in fields[name].split(",") if part.strip()]
    return fields


@keys.command()
@field_options
@json_option
@exit_on_error
def create(as_json: bool, **options: Any) -> None:
    """Create a key and print it; it is shown only once."""
    redis, fields = open_store()[1], collect_fields(options)
    secret, key = ApiKeys(redis).create(**fields)
    record_change(redis, "key.create", key.id, fields)
    if as_json:
        print_json({**key.to_dict(), "key": secret})
    else:
        print_line(secret)
    require_output()


@keys.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List the keys, by their first and last characters only."""
    keys = ApiKeys(open_store()[1]).list()
    if as_json:
        print_json([key.to_dict() for key in keys])
        return
    headings = ("ID", "NAME", "KEY", "CREATED", "STATE", "BAND", "WEIGHT", "LIMITS")
    print_table(headings, [build_row(key) for key in keys])


def build_row(key: ApiKey) -> tuple[Any, ...]:
    names = ("concurrency", "rpm", "tpm", "quota_tokens", "quota_requests")
    limits = ", ".join(f"{name} {getattr(key, name)}" for name in names if getattr(key, name))
    return (
        key.id,
        key.name or "-",
        key.hint,
        format_time(key.created_at),
        describe_state(key),
        key.band,
        f"{key.weight:g}",
        limits or "-",
    )


def describe_state(key: ApiKey) -> str:
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
    """Show the record of a key."""
    print_key(ApiKeys(open_store()[1]).get(key_id), as_json)


def print_key(key: ApiKey, as_json: bool) -> None:
    """Prints a record with one line per field."""
    if as_json:
        print_json(key.to_dict())
        return
    for name, value in key.to_dict().items():
        text = ", ".join(value) if isinstance(value, list) else value
        print_line(f"{name}: {format_time(value) if name.endswith('_at') else '-' if text == '' else text}")


@keys.command()
@click.argument("key_id")
@field_options
@json_option
@exit_on_error
def update(key_id: str, as_json: bool, **options: Any) -> None:
    """Change a key, in force everywhere within two seconds. 0 removes a limit, an empty value removes a list."""
    changes = collect_fields(options)
    if not changes:
        raise BadField("", "nothing to change: give at least one option")
    redis = open_store()[1]
    changed = ApiKeys(redis).update(key_id, changes)
    apply_limits(redis, changed)
    record_change(redis, "key.update", key_id, changes)
    print_key(changed, as_json)


@keys.command()
@click.argument("key_id")
@click.option(
    "--grace-hours",
    type=NumberRange(0, 24 * 90),
    default=24,
    show_default=True,
    help="For how long the former secret is accepted; 0 ends all former ones.",
)
@json_option
@exit_on_error
def rotate(key_id: str, grace_hours: float, as_json: bool) -> None:
    """Give a key a new secret and print it; it is shown only once. Limits and usage stay with the key."""
    redis = open_store()[1]
    secret, key = ApiKeys(redis).rotate(key_id, 3600 * grace_hours)
    record_change(redis, "key.rotate", key_id, {"grace_hours": grace_hours})
    if as_json:
        print_json({**key.to_dict(), "key": secret})
    else:
        print_line(secret)
    require_output()


@keys.command()
@click.argument("key_id")
@exit_on_error
def end_former(key_id: str) -> None:
    """End all former secrets of a key, within a second."""
    redis = open_store()[1]
    ApiKeys(redis).end_superseded(key_id)
    record_change(redis, "key.end_former", key_id)
    print_line(f"{key_id} is opened by its present secret only")


@keys.command()
@click.argument("key_ids", nargs=-1, required=True)
@exit_on_error
def revoke(key_ids: tuple[str, ...]) -> None:
    """Revoke keys for good; their requests are rejected within a second."""
    redis = open_store()[1]
    store = ApiKeys(redis)
    for key in [store.get(key_id) for key_id in key_ids]:
        store.revoke(key.id)
        record_change(redis, "key.revoke", key.id)
        print_line(f"{key.id} revoked")
