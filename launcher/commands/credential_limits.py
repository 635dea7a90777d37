"""`./farm credentials limit`: limits of single accounts."""

from typing import Any

import click

from launcher.number_option import NumberRange
from launcher.output import exit_on_error, json_option, print_json, print_line
from launcher.selection import select_credentials
from launcher.store import open_store, record_change
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.pacing.account_limits import LIMIT_NAMES, MAX_COUNT, MAX_GAP_SECONDS, OwnLimits

#: What `--rpm` and the others may have, in place of a number, to leave the limit to the pool.
POOL = "pool"


class LimitValue(click.ParamType[Any]):
    """A limit: a number of this type, or `pool`."""

    def __init__(self, number: click.ParamType[Any], name: str) -> None:
        self.number, self.name = number, name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return POOL if value == POOL else self.number.convert(value, param, ctx)


COUNT = LimitValue(click.IntRange(0, MAX_COUNT), "number|pool")
SECONDS = LimitValue(NumberRange(0, MAX_GAP_SECONDS), "seconds|pool")


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@click.option("--rpm", "account_rpm", type=COUNT, help="Requests per minute.")
@click.option("--tpm", "account_tpm", type=COUNT, help="Tokens per minute.")
@click.option("--rpd", "account_rpd", type=COUNT, help="Requests in 24 hours.")
@click.option("--gap", "account_gap", type=SECONDS, help="Seconds from the end of a request to the next.")
@click.option("--default", "is_default", is_flag=True, help="Leave all other limits to the pool again.")
@json_option
@exit_on_error
def limit(credential_ids: tuple[str, ...], is_default: bool, as_json: bool, **options: Any) -> None:
    """Give accounts limits of their own, in place of their pool's (FARM_ACCOUNT_RPM, …), from the next request on.

    0 stands for no limit, `pool` for the pool's.
    """
    given = {name: None if value == POOL else value for name, value in options.items() if value is not None}
    changes = {**(dict.fromkeys(LIMIT_NAMES) if is_default else {}), **given}
    if not changes:
        raise FarmError("give a limit, e.g. --rpm 10, or --default")
    settings, redis = open_store()
    store = Credentials(redis)
    records = select_credentials(settings, redis, credential_ids)
    for record in records:
        store.set_limits(record.id, changes)
        record_change(redis, "credential.update", record.id, changes)
    changed = select_credentials(settings, redis, [record.id for record in records])
    if as_json:
        print_json(
            [{"id": record.id, "pool": record.pool, "limits": record.own_limits.to_dict()} for record in changed]
        )
        return
    for record in changed:
        print_line(f"{record.id} {describe_limits(record.own_limits)}")


def describe_limits(limits: OwnLimits) -> str:
    own = [f"{name} {value or 'off'}" for name, value in limits.to_dict().items()]
    return ", ".join(own) or "has the limits of its pool"
