"""`./farm batches`: the large jobs of callers."""

from typing import Any

import click

from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from shared.batches.batch import Batch
from shared.batches.batch_store import Batches
from shared.observability.names_by_id import find_key_names

BY_OPERATOR = "operator"
#: Batches that are listed by default.
DEFAULT_LIMIT = 50


@click.group()
def batches() -> None:
    """List, show and cancel batches."""


@batches.command(name="list")
@click.option("--key", default="", help="Only those of this API key.")
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=DEFAULT_LIMIT, show_default=True)
@json_option
@exit_on_error
def list_(key: str, active: bool, limit: int, as_json: bool) -> None:
    """List batches, newest first."""
    redis = open_store()[1]
    store = Batches(redis)
    if active:
        found = [batch for batch in reversed(store.read_active()) if key in ("", batch.key)][:limit]
    else:
        found = store.list_newest(key or None, limit=limit)
    if as_json:
        print_json([describe(batch) for batch in found])
        return
    names = find_key_names(redis, [batch.key for batch in found])
    print_table(
        ("ID", "STATUS", "DONE", "FAILED", "TOTAL", "KEY", "MODEL", "CREATED"),
        [
            (
                batch.id,
                batch.status,
                batch.completed + batch.failed,
                batch.failed,
                batch.total,
                names.get(batch.key) or batch.key,
                batch.model or "-",
                format_time(batch.created_at),
            )
            for batch in found
        ],
    )


@batches.command()
@click.argument("batch_id")
@json_option
@exit_on_error
def show(batch_id: str, as_json: bool) -> None:
    """Show a batch."""
    batch = Batches(open_store()[1]).get(batch_id)
    if as_json:
        print_json(describe(batch))
        return
    for name, value in describe(batch).items():
        if name.endswith(("_at",)):
            print_line(f"{name}: {format_time(value or 0)}")
        elif name == "errors":
            for error in batch.errors:
                print_line(f"error: line {error['line'] or '-'}: {error['code']}: {error['message']}")
        elif name != "object":
            print_line(f"{name}: {'-' if value in (None, '') else value}")


@batches.command()
@click.argument("batch_ids", nargs=-1, required=True)
@exit_on_error
def cancel(batch_ids: tuple[str, ...]) -> None:
    """Cancel batches; what is done is kept, and they end within seconds."""
    redis = open_store()[1]
    for batch_id in batch_ids:
        Batches(redis).cancel(batch_id, reason=BY_OPERATOR)
        record_change(redis, "batch.cancel", batch_id)
        print_line(f"{batch_id} is being cancelled")


def describe(batch: Batch) -> dict[str, Any]:
    """The batch object of OpenAI's API, with the API key's id and why it was cancelled."""
    return {**batch.describe(), "key": batch.key, "reason": batch.reason}
