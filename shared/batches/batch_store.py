"""The batches of all API keys, and how their lines begin and end, each step in one script."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from redis import Redis

from shared import clock, keys
from shared.batches.batch import CANCELLING, IN_PROGRESS, VALIDATING, Batch, encode_fields, name_failure
from shared.batches.running_line import NOBODY, RunningLine
from shared.creations.created_once import CREATED_ONCE_LUA, Once, check_first, encode_once
from shared.decoding import UnreadableRecord
from shared.errors import Conflict, FarmError, NotFound
from shared.observability.event_log import encode_event
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import register_script
from shared.redis_connection.lease import NOT_HELD, build_lease

log = logging.getLogger("farm.batches")
#: Unfinished batches of an API key.
MAX_UNFINISHED = 100
#: Seconds for which the record of a batch is kept after its end, and for which lists have it after its creation.
KEPT_SECONDS, LISTED_SECONDS = 30 * 86_400, 60 * 86_400
#: Milliseconds after which another front may take a batch over whose front does not renew its lease.
LEASE_MS = 10_000
#: Records read from Redis at a time.
RECORDS_AT_ONCE = 100


class TooManyBatches(FarmError):
    """Raised when an API key has as many unfinished batches as it may."""


class StagedResults(NamedTuple):
    """The results that make up the next part of each file, and the sizes of the parts before it as JSON."""

    results: list[bytes]
    output_parts: str
    error_parts: str


class Batches:
    """All methods raise RedisError."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline | None = None) -> None:
        self._redis = redis
        folder = Path(__file__).parent
        register = pipeline.register_script if pipeline else lambda *files: register_script(redis, *files)
        self._create = register(CREATED_ONCE_LUA, folder / "create_batch.lua")
        self._change = register(folder / "change_status.lua")
        self._begin = register(folder / "begin_line.lua")
        self._release = register(folder / "release_line.lua")
        self._record = register(folder / "record_result.lua")
        self._record_skipped = register(folder / "record_skipped.lua")
        self._stage = register(folder / "stage_results.lua")
        self._commit = register(folder / "commit_results.lua")
        self._hold = build_lease(redis)

    # Records

    def add(self, batch: Batch, once: Once | None = None) -> None:
        """Idempotent. Raises TooManyBatches, CreatedBefore, CreatedOther."""
        values = encode_fields({name: value for name, value in vars(batch).items() if value is not None})
        record, kept = encode_once(once, batch.describe())
        args = [batch.id, f"{clock.now():.3f}", MAX_UNFINISHED, LISTED_SECONDS, *kept]
        indexes = [keys.batches(batch.key), keys.BATCHES, keys.ACTIVE_BATCHES, keys.active_batches(batch.key)]
        added = self._create(
            keys=[keys.batch(batch.id), *indexes, record, keys.file(batch.input_file_id)],
            args=[*args, *(word for pair in values.items() for word in pair)],
        )
        check_first(added)
        if not added:
            raise TooManyBatches(f"an API key may have {MAX_UNFINISHED} unfinished batches")

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

    def read_active(self) -> list[Batch]:
        return self._read(self.list_active())

    def _read(self, ids: Sequence[str]) -> list[Batch]:
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(keys.batch(id_))
            stored = pipe.execute()
        return [batch for id_, each in zip(ids, stored, strict=True) if (batch := decode(id_, each))]

    def forget(self, batch_id: str) -> None:
        """Takes an unfinished batch whose record is lost out of the list."""
        self._redis.zrem(keys.ACTIVE_BATCHES, batch_id)

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

    # The lease

    def hold_lease(self, batch_id: str, holder: str) -> bool:
        """Takes or renews the lease."""
        return self._hold(keys.batch_lease(batch_id), holder, LEASE_MS) != NOT_HELD

    def take_leases(self, batch_ids: Sequence[str], holder: str, most: int) -> list[str]:
        """Takes up to `most` leases that no front has, or one that has ended; returns the batches."""
        leases = self._redis.mget([keys.batch_lease(id_) for id_ in batch_ids]) if batch_ids else []
        owners = {id_: owner.decode() if owner else "" for id_, owner in zip(batch_ids, leases, strict=True)}
        gone = self.find_gone(sorted({owner for owner in owners.values() if owner})) | {"", holder}
        free = [id_ for id_, owner in owners.items() if owner in gone][:most]
        return [id_ for id_ in free if self._hold(keys.batch_lease(id_), holder, LEASE_MS, owners[id_]) != NOT_HELD]

    def give_up_lease(self, batch_id: str, holder: str) -> None:
        self._hold(keys.batch_lease(batch_id), holder, 0)

    # Lines

    def begin_line(
        self,
        batch_id: str,
        holder: str,
        number: int,
        run: RunningLine,
        *,
        after: int = 0,
        instead_of: RunningLine | None = None,
    ) -> bool:
        """Begins a new line, the next one after the line `after`, or takes one over from a run that has no result.

        False if it must not begin: the lease is lost, it has a result, or somebody else runs it.
        """
        expected = instead_of.encode() if instead_of else ""
        args = [holder, number, expected, run.encode(), after, run.offset + run.length]
        lists = [keys.batch_running(batch_id), keys.batch_done(batch_id)]
        return bool(self._begin(keys=[keys.batch(batch_id), keys.batch_lease(batch_id), *lists], args=args))

    def release_line(self, batch_id: str, number: int, run: RunningLine) -> None:
        """Lets anyone run a line that has no result."""
        released = RunningLine(NOBODY, run.nonce, run.since, run.offset, run.length)
        self._release(keys=[keys.batch_running(batch_id)], args=[number, run.encode(), released.encode()])

    def record_result(
        self, batch_id: str, number: int, run: RunningLine, counted_as: str, result: bytes, counts: Mapping[str, int]
    ) -> bool:
        """Records the result of a line; False if another run has it now, or it has one.

        `counted_as`: `completed` or `failed`. `result`: its file's letter, and its line of that. `counts`: what is
        added to fields of the record.
        """
        names = [keys.batch(batch_id), keys.batch_running(batch_id), keys.batch_done(batch_id)]
        args = [number, run.encode(), counted_as, result, *(word for pair in counts.items() for word in pair)]
        return bool(self._record(keys=[*names, keys.batch_results(batch_id)], args=args))

    def record_skipped(self, batch_id: str, holder: str, code: str, results: Mapping[int, bytes]) -> bool:
        """Records those of lines that have no result yet, as failed for this reason; False if the lease is lost."""
        names = [keys.batch(batch_id), keys.batch_lease(batch_id), keys.batch_done(batch_id)]
        args = [holder, name_failure(code), *(word for pair in results.items() for word in pair)]
        return cast("int", self._record_skipped(keys=[*names, keys.batch_results(batch_id)], args=args)) >= 0

    def read_running(self, batch_id: str) -> dict[int, RunningLine]:
        """The lines that have begun and have no result."""
        stored = self._redis.hgetall(keys.batch_running(batch_id))
        return {int(number): RunningLine.decode(encoded) for number, encoded in stored.items()}

    def count_running(self, batch_ids: Sequence[str]) -> dict[str, int]:
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in batch_ids:
                pipe.hlen(keys.batch_running(id_))
            return dict(zip(batch_ids, pipe.execute(), strict=True))

    def count_by_status(self) -> Counter[str]:
        """Unfinished batches by their status."""
        return Counter(batch.status for batch in self.read_active())

    def find_gone(self, fronts: Sequence[str]) -> set[str]:
        """Those of the fronts that have ended."""
        with self._redis.pipeline(transaction=False) as pipe:
            for front in fronts:
                pipe.zscore(keys.FRONTS, front)
                pipe.exists(keys.front_gone(front))
            replies = pipe.execute()
        states = zip(fronts, replies[::2], replies[1::2], strict=True)
        return {front for front, heartbeat, is_gone in states if heartbeat is None or is_gone}

    # Results

    def stage_results(self, batch_id: str, holder: str) -> StagedResults | None:
        """What makes up the next part, the same until it is committed; None if the lease is lost."""
        names = [keys.batch(batch_id), keys.batch_lease(batch_id), keys.batch_results(batch_id)]
        reply = self._stage(keys=names, args=[holder])
        if not reply:
            return None
        count, output_parts, error_parts = int(reply[0]), reply[1].decode(), reply[2].decode()
        results = self._redis.lrange(keys.batch_results(batch_id), 0, count - 1) if count else []
        return StagedResults(results, output_parts, error_parts)

    def commit_results(
        self, batch_id: str, holder: str, staged: StagedResults, output_sizes: Sequence[int], error_sizes: Sequence[int]
    ) -> bool:
        """Drops staged results from Redis, whose parts of these sizes are durable; False if the lease is lost."""
        args = [
            holder,
            len(staged.results),
            sum(map(len, staged.results)),
            staged.output_parts,
            append_sizes(staged.output_parts, output_sizes),
            staged.error_parts,
            append_sizes(staged.error_parts, error_sizes),
        ]
        names = [keys.batch(batch_id), keys.batch_lease(batch_id), keys.batch_results(batch_id)]
        return bool(self._commit(keys=names, args=args))


def append_sizes(sizes: str, more: Sequence[int]) -> str:
    return json.dumps([*json.loads(sizes), *more], separators=(",", ":"))


def decode(batch_id: str, stored: Mapping[bytes, bytes]) -> Batch | None:
    if not stored:
        return None
    try:
        return Batch.decode(stored)
    except UnreadableRecord as error:
        log.error("batch %s can't be read: %s", batch_id, error, extra={"action": "record_unreadable"})
        return None
