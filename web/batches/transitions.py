"""The states of one batch, as the front that has its lease changes them. Each method is False if it has lost it."""

from collections.abc import Mapping
from typing import Any

from shared import clock
from shared.batches.batch import CANCELLING, FAILED, FINALIZING, IN_PROGRESS, VALIDATING, Batch, Sample
from shared.batches.batch_store import Batches


class Transitions:
    """All methods raise RedisError."""

    def __init__(self, store: Batches, holder: str) -> None:
        self._store = store
        self._holder = holder

    def begin(self, batch: Batch, total: int, model: str) -> bool:
        """The input is valid: its lines may run."""
        changes = {"status": IN_PROGRESS, "in_progress_at": int(clock.now()), "total": total, "model": model}
        return self._change(batch, (VALIDATING,), changes)

    def fail(self, batch: Batch, errors: list[dict[str, Any]]) -> bool:
        """Ends a batch whose input can't be used; what is done of it is kept."""
        if batch.status == VALIDATING:
            changes = {"status": FAILED, "failed_at": int(clock.now()), "errors": errors}
            event = f"the input of batch {batch.id} is invalid"
            return self._change(batch, (VALIDATING,), changes, ends=True, event=event)
        changes = {"status": FINALIZING, "finalizing_at": int(clock.now()), "outcome": FAILED, "errors": errors}
        return self._change(batch, (IN_PROGRESS,), changes, disowns=True)

    def finalize(self, batch: Batch, outcome: str) -> bool:
        """Lines that are still running can record no result from now on."""
        changes = {"status": FINALIZING, "finalizing_at": int(clock.now()), "outcome": outcome}
        return self._change(batch, (IN_PROGRESS,), changes, disowns=True)

    def disown_cancelled(self, batch: Batch) -> bool:
        """As `finalize`, for a batch that stays `cancelling`."""
        return self._change(batch, (CANCELLING,), {"status": CANCELLING}, disowns=True)

    def end(self, batch: Batch, outcome: str, errors: list[dict[str, Any]]) -> bool:
        """Its files are there."""
        changes = {"status": outcome, f"{outcome}_at": int(clock.now()), "errors": errors}
        event = f"batch {batch.id}: {batch.completed} of {batch.total} requests completed, {batch.failed} failed"
        return self._change(batch, (batch.status,), changes, ends=True, event=event)

    def note(self, batch: Batch, samples: list[Sample], hindrance: str) -> bool:
        """Notes how a batch gets on, which stays in its state."""
        changes = {"status": batch.status, "samples": samples, "hindrance": hindrance}
        return self._change(batch, (batch.status,), changes)

    def _change(self, batch: Batch, sources: tuple[str, ...], changes: Mapping[str, Any], **options: Any) -> bool:
        return self._store.change(batch, sources, changes, holder=self._holder, **options)
