"""Moves the results of a batch from Redis into the two files that it ends with."""

import json
from collections.abc import Sequence

from shared.batches.batch import Batch
from shared.batches.batch_lines import BatchLines
from shared.files.file_record import BATCH_OUTPUT
from shared.files.file_store import Files
from shared.files.part_store import PART_BYTES, part_name
from web.batches.lines.results import OUTPUT

#: Bytes of results in Redis from which a part is made of them, and from which no further line of the batch begins.
FLUSH_BYTES, MAX_RESULT_BYTES = 1024 * 1024, 8 * 1024 * 1024


class ResultFiles:
    """All methods raise RedisError and FileStoreDown; what has failed can be repeated, by another front too."""

    def __init__(self, lines: BatchLines, files: Files, holder: str) -> None:
        self._lines = lines
        self._files = files
        self._holder = holder

    def flush(self, batch: Batch) -> int:
        """Makes a part of each file of the results in Redis; returns how many they were, -1 if the lease is lost.

        1. Redis settles which results they are.
        2. The parts are put; by a successor again, with the same content.
        3. Only then the results leave Redis.
        """
        staged = self._lines.stage_results(batch.id, self._holder)
        if staged is None:
            return -1
        if not staged.results:
            return 0
        output = [result[1:] for result in staged.results if result[:1] == OUTPUT]
        errors = [result[1:] for result in staged.results if result[:1] != OUTPUT]
        output_sizes = self._put(batch.output_file, len(json.loads(staged.output_parts)), output)
        error_sizes = self._put(batch.error_file, len(json.loads(staged.error_parts)), errors)
        is_committed = self._lines.commit_results(batch.id, self._holder, staged, output_sizes, error_sizes)
        return len(staged.results) if is_committed else -1

    def _put(self, file_id: str, number: int, lines: Sequence[bytes]) -> list[int]:
        """Puts parts from this number on; returns their sizes."""
        data, sizes = b"".join(lines), list[int]()
        for start in range(0, len(data), PART_BYTES):
            part = data[start : start + PART_BYTES]
            self._files.store.put(part_name(file_id, number + len(sizes)), part)
            sizes.append(len(part))
        return sizes

    def create(self, batch: Batch) -> None:
        """Makes files of the parts; idempotent."""
        for file_id, name, sizes in (
            (batch.output_file, "output", batch.output_parts),
            (batch.error_file, "error", batch.error_parts),
        ):
            if sizes:
                filename, ttl = f"{batch.id}_{name}.jsonl", batch.output_ttl or None
                self._files.create_from_parts(file_id, batch.key, filename, BATCH_OUTPUT, sizes, ttl, batch=batch.id)
