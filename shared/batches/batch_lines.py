"""How lines of batches begin and end, and what becomes of their results: each step in one script."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from redis import Redis

from shared import keys
from shared.batches.batch import name_failure
from shared.batches.running_line import NOBODY, RunningLine
from shared.redis_connection.auto_pipeline import AutoPipeline


class StagedResults(NamedTuple):
    """The results that make up the next part of each file, and the sizes of the parts before it as JSON."""

    results: list[bytes]
    output_parts: str
    error_parts: str


class BatchLines:
    """All methods raise RedisError."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline) -> None:
        self._redis = redis
        folder, register = Path(__file__).parent, pipeline.register_script
        self._begin = register(folder / "begin_line.lua")
        self._release = register(folder / "release_line.lua")
        self._record = register(folder / "record_result.lua")
        self._record_skipped = register(folder / "record_skipped.lua")
        self._stage = register(folder / "stage_results.lua")
        self._commit = register(folder / "commit_results.lua")

    def begin(
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

    def release(self, batch_id: str, number: int, run: RunningLine) -> None:
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
