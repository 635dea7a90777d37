"""The files of all API keys: their records in Redis, and their bytes in a store of parts."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.creations.created_once import CREATED_ONCE_LUA, Once, check_first, encode_once
from shared.decoding import UnreadableRecord
from shared.errors import FarmError
from shared.files.file_record import PURPOSES, FileRecord
from shared.files.file_writer import FileWriter
from shared.files.part_store import FileStoreDown, PartStore
from shared.redis_connection.client import decode_hash, register_script
from shared.redis_connection.retry import CONNECTION_ERRORS

log = logging.getLogger("farm.files")
#: Bytes read at a time: what a slow reader holds in memory.
PIECE_BYTES = 256 * 1024
#: Records read from Redis at a time.
RECORDS_AT_ONCE = 100
#: Results of add_file.lua, and of remove_file.lua.
TOO_MANY_BYTES, TOO_MANY_FILES, STORED_BEFORE = 1, 2, 3
REMOVED, STAYS = 1, 2
#: Functions for the scripts that know which batches read a file.
READERS_LUA = Path(__file__).with_name("readers.lua")


class FileNotFound(FarmError):
    """Raised when the API key has no file of this id."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"no file {file_id!r}")
        self.file_id = file_id


class TooManyFiles(FarmError):
    """Raised when a file would exceed the bytes or the number of files that an API key may have."""


@dataclass(frozen=True)
class FileBounds:
    """What an API key may store."""

    max_bytes: int
    max_files: int
    #: Seconds for which a file is kept.
    ttl_seconds: float


class Files:
    """All methods raise RedisError; those that touch bytes also FileStoreDown."""

    def __init__(self, redis: Redis, store: PartStore, bounds: FileBounds) -> None:
        self._redis = redis
        self.store = store
        self.bounds = bounds
        self._add = register_script(redis, CREATED_ONCE_LUA, Path(__file__).with_name("add_file.lua"))
        self._remove = register_script(redis, READERS_LUA, Path(__file__).with_name("remove_file.lua"))

    def create(self) -> FileWriter:
        """A writer of a new file, to be used in a `with` block and committed in it."""
        return FileWriter(self.store)

    def commit(
        self,
        writer: FileWriter,
        key_id: str,
        filename: str,
        purpose: str,
        ttl_seconds: float | None = None,
        once: Once | None = None,
    ) -> FileRecord:
        """Makes a file of what was written, kept for FARM_FILES_TTL or `ttl_seconds`. Idempotent.

        Raises TooManyFiles, CreatedBefore, CreatedOther.
        """
        writer.flush()
        record = self._build_record(writer.id, key_id, filename, purpose, writer.sizes, ttl_seconds)
        try:
            result = self._store_record(record, self.bounds.max_bytes, self.bounds.max_files, once)
        except CONNECTION_ERRORS:
            # The record may have been stored all the same. If it was not, its parts are swept after a day.
            writer.is_committed = True
            raise
        writer.is_committed = result == STORED_BEFORE
        check_first(result)
        if result == TOO_MANY_BYTES:
            raise self._too_many_bytes()
        if result == TOO_MANY_FILES:
            raise self._too_many_files()
        writer.is_committed = True
        return record if result != STORED_BEFORE else self.find(record.id) or record

    def create_from_parts(
        self,
        file_id: str,
        key_id: str,
        filename: str,
        purpose: str,
        sizes: Sequence[int],
        ttl_seconds: float | None = None,
        *,
        batch: str = "",
    ) -> FileRecord:
        """Makes a file of parts that are in the store: `part_name(file_id, number)`, of these sizes.

        Repeated, it changes nothing. What the farm makes counts, but is not bounded: no result is lost to a full quota.
        """
        built = self._build_record(file_id, key_id, filename, purpose, sizes, ttl_seconds)
        record = replace(built, batch=batch)
        if self._store_record(record, -1, -1) == STORED_BEFORE:
            return self.find(file_id) or record
        return record

    def _build_record(
        self,
        file_id: str,
        key_id: str,
        filename: str,
        purpose: str,
        sizes: Sequence[int],
        ttl_seconds: float | None = None,
    ) -> FileRecord:
        now = int(clock.now())
        expires_at = now + int(self.bounds.ttl_seconds if ttl_seconds is None else ttl_seconds)
        return FileRecord(file_id, key_id, filename, purpose, sum(sizes), now, expires_at, list(sizes))

    def _store_record(self, record: FileRecord, max_bytes: int, max_files: int, once: Once | None = None) -> Any:
        """Returns the result of add_file.lua."""
        created_ms, (creation, kept) = int(1000 * clock.now()), encode_once(once, record.describe())
        args = [record.id, record.key, created_ms, record.expires_at, record.size, max_bytes, max_files, *kept]
        for field, value in record.encode().items():
            args += [field, value]
        return self._add(keys=[*list_keys(record.id, record.key), keys.RESERVED_FILES, creation], args=args)

    def check_room(self, key_id: str, size: int) -> None:
        """Refuses early what would be refused at the end. Raises TooManyFiles."""
        stored = int(self._redis.hget(keys.FILE_BYTES, key_id) or 0)
        if stored + size > self.bounds.max_bytes:
            raise self._too_many_bytes()
        if self._redis.zcard(keys.files(key_id)) >= self.bounds.max_files:
            raise self._too_many_files()

    def _too_many_bytes(self) -> TooManyFiles:
        return TooManyFiles(f"an API key may store {self.bounds.max_bytes} bytes of files: delete some first")

    def _too_many_files(self) -> TooManyFiles:
        return TooManyFiles(f"an API key may store {self.bounds.max_files} files: delete some first")

    def get(self, key_id: str, file_id: str) -> FileRecord:
        """Raises FileNotFound, also for another key's file."""
        record = self.find(file_id)
        if record is None or record.key != key_id:
            raise FileNotFound(file_id)
        return record

    def find(self, file_id: str) -> FileRecord | None:
        """The file, whichever key it belongs to; None if there is none, it has expired, or it can't be read.

        A file does not expire while an unfinished batch reads it.
        """
        return self._decode(file_id, self._redis.hgetall(keys.file(file_id)))

    def find_stored(self, file_ids: Iterable[str]) -> set[str]:
        """Those of the files that are there."""
        wanted = list(file_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in wanted:
                pipe.exists(keys.file(id_))
            return {id_ for id_, is_there in zip(wanted, pipe.execute(), strict=True) if is_there}

    def list(
        self, key_id: str | None = None, after: str = "", limit: int = 100, *, order: str = "desc", purpose: str = ""
    ) -> list[FileRecord]:
        """Up to `limit` files of a key, or of all; behind `after`, newest first with `desc`. Raises FileNotFound."""
        index = keys.FILES if key_id is None else keys.files(key_id)
        position, found = 0, list[FileRecord]()
        if after:
            rank = self._redis.zrevrank(index, after) if order == "desc" else self._redis.zrank(index, after)
            if rank is None:
                raise FileNotFound(after)
            position = cast("int", rank) + 1
        while len(found) < limit:
            count = RECORDS_AT_ONCE if purpose else min(RECORDS_AT_ONCE, limit - len(found))
            ids = self._redis.zrange(index, position, position + count - 1, desc=order == "desc")
            found += [record for record in self._read(ids) if purpose in ("", record.purpose)]
            if len(ids) < count:
                break
            position += count
        return found[:limit]

    def open(self, record: FileRecord, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `end`, in pieces of PIECE_BYTES at most. Raises PartNotFound."""
        for name, first, last in record.iter_ranges(start, record.size if end is None else end, PIECE_BYTES):
            yield self.store.get(name, first, last)

    def delete(self, record: FileRecord) -> bool:
        """Whether the file was there. What the store fails to delete is swept after a day."""
        was_there = self._remove_record(record.id, record.key) == REMOVED
        try:
            self._delete_parts(record.id)
        except FileStoreDown as error:
            fields = {"action": "file_parts_left"}
            log.warning("parts of %s are left until they are swept: %s", record.id, error, extra=fields)
        return was_there

    def delete_later(self, file_id: str) -> None:
        """Has a front delete the parts as well within a minute, for a process that may not see them."""
        self._redis.zadd(keys.EXPIRING_FILES, {file_id: 0})

    def delete_id(self, file_id: str, key_id: str = "", *, unless_read: bool = False) -> bool:
        """Deletes a file, also one that has expired or whose record can't be read, or parts that belong to none.

        `key_id`: whose it is, '' for what its record says. With `unless_read` it stays while an unfinished batch reads
        it; False then.
        """
        owner = key_id or bytes(self._redis.hget(keys.file(file_id), "key") or b"").decode()
        if self._remove_record(file_id, owner, unless_read=unless_read) == STAYS:
            return False
        self._delete_parts(file_id)
        return True

    def is_known(self, file_id: str) -> bool:
        """Whether there is a record of it, or its parts are reserved."""
        until = self._redis.zscore(keys.RESERVED_FILES, file_id)
        return bool(self._redis.exists(keys.file(file_id))) or (until is not None and until > clock.now())

    def _remove_record(self, file_id: str, key_id: str, *, unless_read: bool = False) -> int:
        """Returns the result of remove_file.lua."""
        names = [*list_keys(file_id, key_id), keys.ACTIVE_BATCHES]
        return cast("int", self._remove(keys=names, args=[file_id, key_id, int(unless_read)]))

    def _delete_parts(self, file_id: str) -> None:
        for part in list(self.store.list(f"{file_id}/")):
            self.store.delete(part.name)

    def _read(self, ids: Sequence[bytes]) -> Iterator[FileRecord]:
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(keys.file(id_.decode()))
            for id_, stored in zip(ids, pipe.execute(), strict=True):
                if record := self._decode(id_.decode(), stored):
                    yield record

    def _decode(self, file_id: str, stored: dict[bytes, bytes]) -> FileRecord | None:
        if not stored:
            return None
        try:
            record = FileRecord.decode(stored)
        except UnreadableRecord as error:
            log.error("file %s can't be read: %s", file_id, error, extra={"action": "record_unreadable"})
            return None
        return record if record.readers or record.expires_at > clock.now() else None


def sum_by_purpose(redis: Redis) -> dict[str, tuple[int, int]]:
    """Purpose -> files and their bytes, of all API keys. Raises RedisError."""
    stored = decode_hash(redis.hgetall(keys.FILE_SUMS))
    return {
        purpose: (int(stored.get(f"{purpose}:files", 0)), int(stored.get(f"{purpose}:bytes", 0)))
        for purpose in PURPOSES
    }


def list_keys(file_id: str, key_id: str) -> list[str]:
    """The keys that add_file.lua and remove_file.lua share."""
    return [keys.file(file_id), keys.files(key_id), keys.FILES, keys.EXPIRING_FILES, keys.FILE_BYTES, keys.FILE_SUMS]
