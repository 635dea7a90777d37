"""`./farm files`: the files of all API keys."""

from typing import Any

import click
from redis import Redis

from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table, shorten
from launcher.store import open_store, record_change
from shared.errors import NotFound
from shared.files.file_record import BATCH, BATCH_OUTPUT, FileRecord
from shared.files.file_store import Files
from shared.files.opening import open_files
from shared.observability.names_by_id import find_key_names

#: Files read at a time.
PAGE = 1000
#: Characters of a file's name in the table; `show` and --json have it whole.
SHOWN_NAME_LENGTH = 60


@click.group()
def files() -> None:
    """List, show and remove callers' files: the input of batches, and their output."""


@files.command(name="list")
@click.option("--key", default=None, help="Only those of this API key (id).")
@click.option("--purpose", type=click.Choice([BATCH, BATCH_OUTPUT]), default=None, help="Only those for this.")
@json_option
@exit_on_error
def list_(key: str | None, purpose: str | None, as_json: bool) -> None:
    """List the files of all keys, newest first."""
    store, redis = open_file_store()
    records = list_all(store, key, purpose or "")
    names = find_key_names(redis, {record.key for record in records})
    if as_json:
        print_json([record.describe_for_operators(names.get(record.key, "")) for record in records])
        return
    headings = ("ID", "KEY", "KEY NAME", "FILE", "PURPOSE", "BYTES", "CREATED", "EXPIRES")
    print_table(headings, [build_row(record, names) for record in records])


def list_all(store: Files, key: str | None, purpose: str) -> list[FileRecord]:
    records = store.list(key, limit=PAGE, purpose=purpose)
    page = records
    while len(page) == PAGE:
        page = store.list(key, records[-1].id, PAGE, purpose=purpose)
        records = records + page
    return records


@files.command()
@click.argument("file_id")
@json_option
@exit_on_error
def show(file_id: str, as_json: bool) -> None:
    """Show a file's record; its content is only its caller's."""
    store, redis = open_file_store()
    record = find(store, file_id)
    values = record.describe_for_operators(find_key_names(redis, {record.key}).get(record.key, ""))
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        print_line(f"{name}: {format_value(name, value) or '-'}")


@files.command()
@click.argument("file_ids", nargs=-1, required=True)
@exit_on_error
def remove(file_ids: tuple[str, ...]) -> None:
    """Delete files and their content."""
    store, redis = open_file_store()
    for file_id in file_ids:
        record = find(store, file_id)
        store.delete(record)
        store.delete_later(file_id)
        record_change(redis, "file.remove", file_id, {"key": record.key, "filename": record.filename})
        print_line(f"{file_id} removed")


def open_file_store() -> tuple[Files, Redis]:
    """Raises FarmError."""
    settings, redis = open_store()
    return open_files(settings, redis), redis


def find(store: Files, file_id: str) -> FileRecord:
    """Raises NotFound."""
    record = store.find(file_id)
    if record is None:
        raise NotFound(f"no file {file_id!r}")
    return record


def format_value(name: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return format_time(value) if name.endswith("_at") else str(value)


def build_row(record: FileRecord, names: dict[str, str]) -> tuple[Any, ...]:
    return (
        record.id,
        record.key,
        names.get(record.key) or "-",
        shorten(record.filename, SHOWN_NAME_LENGTH),
        record.purpose,
        record.size,
        format_time(record.created_at),
        format_time(record.expires_at),
    )
