"""Files for the console's pages."""

from pathlib import Path

from redis import Redis

from shared.files.directory_store import DirectoryStore
from shared.files.file_record import BATCH, BATCH_OUTPUT, new_file_id
from shared.files.file_store import FileBounds, Files
from tests.console_batches import add_batch

MB = 1024 * 1024
DAY = 86_400


def add_file(redis: Redis, key_id: str, filename: str, size: int = 5, batch: str = "") -> str:
    """The record of a file whose parts are nowhere; the output of a batch if one is named. Returns its id."""
    files = Files(redis, DirectoryStore(Path("/nowhere")), FileBounds(MB, 10, 30 * DAY))
    purpose, id_ = (BATCH_OUTPUT if batch else BATCH), new_file_id()
    return files.create_from_parts(id_, key_id, filename, purpose, [size], batch=batch).id


def fill_files(redis: Redis, key_ids: list[str], text: str) -> list[str]:
    """An input that a batch has read, its output, and a large file that nobody has used."""
    read = add_file(redis, key_ids[0], f"{text}.jsonl", 3 * MB)
    batch = add_batch(redis, key_ids[0], "completed", input_file_id=read)
    made = add_file(redis, key_ids[0], "output.jsonl", 2 * MB, batch.id)
    return [read, made, add_file(redis, key_ids[1], "b", 950 * MB)]
