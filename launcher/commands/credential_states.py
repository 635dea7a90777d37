"""`./farm credentials disable|drain|enable|adopt`: the states that an operator sets."""

from typing import Any

import click
from redis import Redis

from launcher.number_option import NumberRange
from launcher.output import exit_on_error, json_option, print_json, print_line
from launcher.selection import select_credentials
from launcher.store import open_store, record_change
from launcher.time_option import TIME
from shared.credentials import private
from shared.credentials.draining import wait_until_idle
from shared.credentials.records import STATES, CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins
from shared.errors import FarmError
from shared.settings.schema import Settings

pool_option = click.option("--pool", default="", help="Only credentials of this pool.")


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@exit_on_error
def disable(credential_ids: tuple[str, ...]) -> None:
    """Take credentials out of service until they are enabled again."""
    settings, redis = open_store()
    store = Credentials(redis)
    for record in select_credentials(settings, redis, credential_ids):
        store.disable(record.pool, record.id)
        record_change(redis, "credential.disable", record.id)
        print_line(f"{record.id} disabled")


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@click.option("--timeout", type=NumberRange(0), default=600.0, show_default=True, help="Longest wait in seconds.")
@exit_on_error
def drain(credential_ids: tuple[str, ...], timeout: float) -> None:
    """Take credentials out of service, and wait until their running requests have ended."""
    settings, redis = open_store()
    store, records = Credentials(redis), select_credentials(settings, redis, credential_ids)
    for record in records:
        store.disable(record.pool, record.id)
        record_change(redis, "credential.drain", record.id)
    remaining = {record.id for record in records}
    for idle in wait_until_idle(redis, list(remaining), timeout):
        remaining -= set(idle)
        for credential_id in idle:
            print_line(f"{credential_id} drained and disabled")
    if remaining:
        raise FarmError(f"disabled, but the requests of {', '.join(sorted(remaining))} still run")


@click.command()
@click.argument("credential_ids", nargs=-1)
@click.option("--state", type=click.Choice(STATES), help="All that are in this state, e.g. dead.")
@click.option("--since", type=TIME, default=0.0, help="With --state: since then, e.g. 1h, or a date.")
@pool_option
@json_option
@exit_on_error
def enable(credential_ids: tuple[str, ...], state: str | None, since: float, pool: str, as_json: bool) -> None:
    """Put credentials back into service, whatever state they are in: by their ids, or all with --state."""
    settings, redis = open_store()
    if bool(credential_ids) == bool(state):
        raise FarmError("give credential ids, or --state and, if need be, --since and --pool")
    if state:
        records = find_in_state(settings, redis, state, since, pool)
    else:
        records = list(select_credentials(settings, redis, credential_ids))
    if foreign := [record for record in records if record.state == "foreign"]:
        raise FarmError(f"{foreign[0].id} {foreign[0].reason}")
    store = Credentials(redis)
    for record in records:
        store.enable(record.pool, record.id)
        record_change(redis, "credential.enable", record.id)
    print_changed(records, "active", as_json)


@click.command()
@click.argument("credential_ids", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every credential in state foreign.")
@pool_option
@json_option
@exit_on_error
def adopt(credential_ids: tuple[str, ...], all_: bool, pool: str, as_json: bool) -> None:
    """Send the tokens of foreign credentials to their pool's present token endpoint from now on.

    A credential is foreign when its pool's token endpoint is on another host than the one that it was given for. Adopt
    it if that host is the same provider's; else correct FARM_TOKEN_URL, and it comes back by itself.
    """
    settings, redis = open_store()
    if bool(credential_ids) == all_:
        raise FarmError("give credential ids, or --all and, if need be, --pool")
    if all_:
        records = find_in_state(settings, redis, "foreign", 0, pool)
    else:
        records = list(select_credentials(settings, redis, credential_ids))
    origins = TokenOrigins(redis)
    for record in records:
        origins.adopt(settings.pool(record.pool), record.id)
        record_change(redis, "credential.adopt", record.id)
    print_changed(records, "adopted", as_json)


def find_in_state(settings: Settings, redis: Redis, state: str, since: float, pool: str) -> list[CredentialRecord]:
    """Finds the credentials that have been in the state since then or later, private ones included."""
    pools = private.list_all_pools(redis, settings.pool_names)
    records = Credentials(redis).list(name for name in pools if pool in ("", name))
    return [record for record in records if record.state == state and record.state_since >= since]


def print_changed(records: list[CredentialRecord], result: str, as_json: bool) -> None:
    """Prints what became of each credential."""
    if as_json:
        rows: list[dict[str, Any]] = [{"id": record.id, "pool": record.pool, "result": result} for record in records]
        print_json(rows)
        return
    for record in records:
        print_line(f"{record.id} {result}")
    if not records:
        print_line("no credential is in that state")
