"""`./farm batches`: the large jobs of callers."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from launcher.views.times import format_distance
from shared import clock
from shared.batches.batch import BY_OPERATOR, Batch
from shared.batches.batch_store import Batches
from shared.batches.hindrances import HINDRANCES
from shared.batches.pace import describe_progress, find_pace
from shared.batches.removal import remove_batch
from shared.observability.names_by_id import find_key_names

#: Batches that are listed by default.
DEFAULT_LIMIT = 50


@click.group()
def batches() -> None:
    """List, show, cancel and remove batches."""


@batches.command(name="list")
@click.option("--key", default="", help="Only those of this API key (id).")
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
    names = find_key_names(redis, [batch.key for batch in found])
    if as_json:
        print_json([describe(batch, names) for batch in found])
        return
    print_table(
        ("ID", "STATUS", "COMPLETED", "FAILED", "TOTAL", "PER MIN", "DONE", "KEY", "MODEL", "CREATED", "NOTE"),
        [
            (
                batch.id,
                batch.status,
                batch.completed,
                batch.failed,
                batch.total,
                describe_pace(batch),
                format_time(find_pace(batch, clock.now()).done_at),
                names.get(batch.key) or batch.key,
                batch.model or "-",
                format_time(batch.created_at),
                describe_standstill(batch),
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
    redis = open_store()[1]
    batch = Batches(redis).get(batch_id)
    names = find_key_names(redis, [batch.key])
    if as_json:
        print_json(describe(batch, names))
        return
    for name, value in describe(batch, names).items():
        if name in LINES:
            print_line(LINES[name](batch))
        elif name.endswith("_at"):
            print_line(f"{name}: {format_time(value or 0)}")
        elif name not in ("object", "errors", "still_seconds"):
            print_line(f"{name}: {value or '-'}")
    for error in batch.errors:
        print_line(f"error: line {error['line'] or '-'}: {error['code']}: {error['message']}")


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


@batches.command()
@click.argument("batch_ids", nargs=-1, required=True)
@exit_on_error
def remove(batch_ids: tuple[str, ...]) -> None:
    """Delete the records of batches that have ended; `farm files remove` deletes their files."""
    redis = open_store()[1]
    for batch_id in batch_ids:
        batch = remove_batch(redis, batch_id)
        record_change(redis, "batch.remove", batch_id, {"key": batch.key})
        print_line(f"{batch_id} removed")


def describe(batch: Batch, names: Mapping[str, str]) -> dict[str, Any]:
    """The batch object of OpenAI's API, with the API key, why it was cancelled, and how it gets on."""
    key = {"key": batch.key, "key_name": names.get(batch.key, ""), "reason": batch.reason}
    return {**batch.describe(), **key, **describe_progress(batch, clock.now())}


def count_requests(batch: Batch) -> str:
    return f"requests: {batch.total} in all, {batch.completed} completed, {batch.failed} failed"


def count_tokens(batch: Batch) -> str:
    inputs = f"{batch.input_tokens} in ({batch.cached_tokens} cached)"
    return f"tokens: {inputs}, {batch.output_tokens} out ({batch.reasoning_tokens} reasoning)"


def list_metadata(batch: Batch) -> str:
    pairs = [f"{name}={value}" for name, value in (batch.metadata or {}).items()]
    return f"metadata: {', '.join(pairs) or '-'}"


def describe_pace(batch: Batch) -> str:
    """Requests a minute, `-` if that can't be told."""
    per_minute = find_pace(batch, clock.now()).per_minute
    return "-" if per_minute is None else f"{per_minute:.1f}"


def describe_standstill(batch: Batch) -> str:
    """That no request has ended for long, and what keeps them from being run; '' for nothing of either."""
    found, progress = [], describe_progress(batch, clock.now())
    if progress["still_seconds"]:
        found.append(f"no request has ended for {format_distance(progress['still_seconds'])}")
    if progress["hindrance"]:
        found.append(HINDRANCES.get(progress["hindrance"], progress["hindrance"]))
    return ": ".join(found)


#: Members of the batch object that are objects, or tell of its progress -> their line for people.
LINES: dict[str, Callable[[Batch], str]] = {
    "request_counts": count_requests,
    "usage": count_tokens,
    "metadata": list_metadata,
    "per_minute": lambda batch: f"requests a minute: {describe_pace(batch)}",
    "hindrance": lambda batch: f"stands still: {describe_standstill(batch) or '-'}",
}
