"""The record of a file: who it belongs to, how long it is kept, and the sizes of its parts."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.decoding import UnreadableRecord, decode_record, parse_values
from shared.files.part_store import part_name

#: What a file is for: the input of a batch, which a caller uploads, and its output or errors, which the farm makes.
BATCH, BATCH_OUTPUT = "batch", "batch_output"
PURPOSES = (BATCH, BATCH_OUTPUT)
FILE_ID_PREFIX = "file-"
#: Fields that are stored as numbers, and the one that is stored as JSON.
NUMBERS, PARTS = ("size", "created_at", "expires_at"), "parts"


@dataclass(frozen=True)
class FileRecord:
    """One file. Its parts are `part_name(id, number)`, numbered from 0."""

    id: str
    #: Id of the API key.
    key: str
    filename: str
    purpose: str
    #: In bytes.
    size: int
    #: Seconds since the epoch.
    created_at: int
    #: From then on it is deleted, unless an unfinished batch reads it.
    expires_at: int
    #: Sizes of the parts in bytes.
    parts: list[int]
    status: str = "processed"
    #: Id of the batch that has made it, or that has read it last; '' for none.
    batch: str = ""
    #: Ids of the unfinished batches that read it, until which have ended it is kept, with a space behind each.
    readers: str = ""

    def encode(self) -> dict[str, str | int]:
        """The fields of its hash in Redis."""
        return {
            **{name: getattr(self, name) for name in ("id", "key", "filename", "purpose", "status", "batch", *NUMBERS)},
            PARTS: json.dumps(self.parts, separators=(",", ":")),
        }

    @classmethod
    def decode(cls, stored: dict[bytes, bytes]) -> "FileRecord":
        """Raises UnreadableRecord."""
        values: dict[str, Any] = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
        try:
            values |= {name: int(values[name]) for name in NUMBERS}
        except (KeyError, ValueError):
            raise UnreadableRecord("a FileRecord lacks a number") from None
        return decode_record(cls, {**values, PARTS: parse_values(values.get(PARTS, ""))})

    def describe(self) -> dict[str, Any]:
        """The file object of OpenAI's API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": self.status,
            "status_details": None,
        }

    def describe_for_operators(self, key_name: str) -> dict[str, Any]:
        """As the commands and the admin API show the files of all keys."""
        values = {"id": self.id, "key": self.key, "key_name": key_name, "filename": self.filename}
        times = {"created_at": self.created_at, "expires_at": self.expires_at}
        batches = {"batch": self.batch, "readers": self.readers.split()}
        return {**values, "purpose": self.purpose, "bytes": self.size, **times, **batches}

    def iter_ranges(self, start: int, end: int, most: int) -> Iterator[tuple[str, int, int]]:
        """The pieces, of `most` bytes at most, that make up these bytes: the part's name, start and end in it."""
        part_start = 0
        for number, size in enumerate(self.parts):
            first, last = max(start - part_start, 0), min(end - part_start, size)
            for offset in range(first, last, most):
                yield part_name(self.id, number), offset, min(offset + most, last)
            part_start += size


def new_file_id() -> str:
    return f"{FILE_ID_PREFIX}{secrets.token_hex(12)}"
