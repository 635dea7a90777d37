"""Steps of batches and their lines."""

from typing import Any

from shared import clock
from shared.batches.batch import Batch, new_batch_id
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches
from shared.batches.running_line import RunningLine, begin_run


def add(store: Batches, key: str = "k1", **fields: Any) -> Batch:
    now = int(clock.now())
    batch = Batch(
        new_batch_id(), key, "/v1/completions", "file-1", "file-2", "file-3", now, "24h", now + 86_400, **fields
    )
    store.add(batch)
    return batch


def begin(lines: BatchLines, batch: Batch, number: int, front: str = "f1") -> RunningLine | None:
    run = begin_run(front, clock.now(), 10 * number, 10)
    return run if lines.begin(batch.id, front, number, run, after=number - 1) else None


def record(lines: BatchLines, batch: Batch, number: int, run: RunningLine, result: bytes = b"o{}\n") -> bool:
    return lines.record_result(batch.id, number, run, "completed", result, {"input_tokens": 2})
