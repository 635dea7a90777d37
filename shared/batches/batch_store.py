"""The records of the batches of all API keys."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.batches.batch import CANCELLING, IN_PROGRESS, VALIDATING, Batch, encode_fields
from shared.creations.created_once import CREATED_ONCE_LUA, Once, check_first, encode_once
from shared.decoding import UnreadableRecord
from shared.errors import Conflict, FarmError, NotFound
from shared.files.file_store import READERS_LUA, FileNotFound
from shared.observability.event_log import encode_event
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.batches")
#: Unfinished batches of an API key.
MAX_UNFINISHED = 100
#: Seconds for which the record of a batch is kept after its end, and for which lists have it after its creation.
KEPT_SECONDS, LISTED_SECONDS = 30 * 86_400, 60 * 86_400
#: Seconds after the end of its window for which the parts of a batch's results are kept although they are no files yet.
RESERVED_SECONDS = 7 * 86_400
#: Results of create_batch.lua.
TOO_MANY, INPUT_GONE = 0, 2
#: Records read from Redis at a time.
RECORDS_AT_ONCE = 100


class TooManyBatches(FarmError):
    """Raised when an API key has as many unfinished batches as it may."""


class Batches:
    """All methods raise RedisError."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline | None = None) -> None:
        self._redis = redis
        folder = Path(__file__).parent
        register = pipeline.register_script if pipeline else lambda *files: register_script(redis, *files)
        self._create = register(CREATED_ONCE_LUA, READERS_LUA, folder / "create_batch.lua")
        self._change = register(READERS_LUA, folder / "change_status.lua")

    # Records

    def add(self, batch: Batch, once: Once | None = None) -> None:
        """Keeps its input from expiring until it has ended. Idempotent.

        Raises TooManyBatches, FileNotFound, CreatedBefore, CreatedOther.
        """
        values = encode_fields({name: value for name, value in vars(batch).items() if value is not None})
        record, kept = encode_once(once, batch.describe())
        results = [batch.output_file, batch.error_file, batch.expires_at + RESERVED_SECONDS]
        args = [batch.id, f"{clock.now():.3f}", MAX_UNFINISHED, LISTED_SECONDS, *kept, *results]
        indexes = [keys.batches(batch.key), keys.BATCHES, keys.ACTIVE_BATCHES, keys.active_batches(batch.key)]
        added = self._create(
            keys=[keys.batch(batch.id), *indexes, record, keys.file(batch.input_file_id), keys.RESERVED_FILES],
            args=[*args, *(word for pair in values.items() for word in pair)],
        )
        check_first(added)
        if added == TOO_MANY:
            raise TooManyBatches(f"an API key may have {MAX_UNFINISHED} unfinished batches")
        if added == INPUT_GONE:
            raise FileNotFound(batch.input_file_id)

    def find(self, batch_id: str) -> Batch | None:
        """The batch, whichever key it belongs to; None if there is none, or it can't be read."""
        return decode(batch_id, self._redis.hgetall(keys.batch(batch_id)))

    def get(self, batch_id: str, key_id: str | None = None) -> Batch:
        """Raises NotFound, also for a batch of another key than `key_id`, unless that is None."""
        batch = self.find(batch_id)
        if batch is None or key_id not in (None, batch.key):
            raise NotFound(f"no batch {batch_id!r}")
        return batch

    def list_newest(self, key_id: str | None = None, after: str = "", limit: int = 20) -> list[Batch]:
        """Up to `limit` batches of a key, or of all, the newest first, from behind `after`. Raises NotFound."""
        index, position, found = keys.BATCHES if key_id is None else keys.batches(key_id), 0, list[Batch]()
        if after:
            rank = self._redis.zrevrank(index, after)
            if rank is None:
                raise NotFound(f"no batch {after!r}")
            position = cast("int", rank) + 1
        while len(found) < limit:
            ids = [id_.decode() for id_ in self._redis.zrevrange(index, position, position + RECORDS_AT_ONCE - 1)]
            found += self._read(ids)
            if len(ids) < RECORDS_AT_ONCE:
                break
            position += RECORDS_AT_ONCE
        return found[:limit]

    def list_active(self) -> list[str]:
        """The ids of unfinished batches, the oldest first."""
        return [id_.decode() for id_ in self._redis.zrange(keys.ACTIVE_BATCHES, 0, -1)]

    def read_keys(self, batch_ids: Sequence[str]) -> dict[str, str]:
        """The API keys of batches, without those whose record is lost."""
        return {id_: key for id_, key in self._read_field(batch_ids, "key").items() if key}

    def find_cancelling(self, batch_ids: Sequence[str]) -> list[str]:
        """Those of the batches that are to be cancelled."""
        return [id_ for id_, status in self._read_field(batch_ids, "status").items() if status == CANCELLING]

    def _read_field(self, batch_ids: Sequence[str], name: str) -> dict[str, str]:
        """A field of each record, '' where that is lost."""
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in batch_ids:
                pipe.hget(keys.batch(id_), name)
            return {id_: (value or b"").decode() for id_, value in zip(batch_ids, pipe.execute(), strict=True)}

    def read_active(self) -> list[Batch]:
        return self._read(self.list_active())

    def _read(self, ids: Sequence[str]) -> list[Batch]:
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(keys.batch(id_))
            stored = pipe.execute()
        return [batch for id_, each in zip(ids, stored, strict=True) if (batch := decode(id_, each))]

    def forget(self, batch_id: str) -> None:
        """Takes a batch out of the list whose record is lost, or can't be read; what is left of it expires."""
        owner = self._redis.hget(keys.batch(batch_id), "key")
        with self._redis.pipeline() as pipe:
            pipe.zrem(keys.ACTIVE_BATCHES, batch_id)
            if owner:
                pipe.srem(keys.active_batches(owner.decode()), batch_id)
            for name in (keys.batch, keys.batch_running, keys.batch_done, keys.batch_results):
                pipe.expire(name(batch_id), KEPT_SECONDS)
            pipe.execute()

    # States

    def cancel(self, batch_id: str, key_id: str | None = None, reason: str = "") -> Batch:
        """Lets its front cancel a batch within seconds; idempotent. Raises NotFound, and Conflict if it has ended."""
        batch = self.get(batch_id, key_id)
        changes = {"status": CANCELLING, "cancelling_at": int(clock.now()), "reason": reason}
        if not self.change(batch, (VALIDATING, IN_PROGRESS), changes):
            batch = self.get(batch_id, key_id)
            if batch.status != CANCELLING:
                raise Conflict(f"a batch with status {batch.status!r} can't be cancelled")
        return self.get(batch_id, key_id)

    def change(
        self,
        batch: Batch,
        sources: Sequence[str],
        changes: Mapping[str, Any],
        *,
        holder: str = "",
        disowns: bool = False,
        ends: bool = False,
        event: str = "",
    ) -> bool:
        """Brings a batch from one of the states `sources` into another; False if it is in none of them.

        `holder` has to have the lease, '' for anyone. `disowns`: no result of a running line is recorded any more.
        `ends`: no further change will come. `event` tells of it in words.
        """
        encoded = encode_event(f"batch_{changes['status']}", reason=batch.id, message=event) if event else ""
        values = encode_fields(changes)
        changed = self._change(
            keys=[
                keys.batch(batch.id),
                keys.batch_lease(batch.id),
                keys.batch_running(batch.id),
                keys.batch_done(batch.id),
                keys.batch_results(batch.id),
                keys.ACTIVE_BATCHES,
                keys.active_batches(batch.key),
                keys.EVENTS,
                keys.file(batch.input_file_id),
            ],
            args=[
                batch.id,
                holder,
                " ".join(sources),
                int(disowns),
                KEPT_SECONDS if ends else "",
                encoded,
                *(word for pair in values.items() for word in pair),
            ],
        )
        return bool(changed)

    def count_by_status(self) -> Counter[str]:
        """Unfinished batches by their status."""
        return Counter(batch.status for batch in self.read_active())


def decode(batch_id: str, stored: Mapping[bytes, bytes]) -> Batch | None:
    if not stored:
        return None
    try:
        return Batch.decode(stored)
    except UnreadableRecord as error:
        log.error("batch %s can't be read: %s", batch_id, error, extra={"action": "record_unreadable"})
        return None
