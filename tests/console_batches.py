"""Batches for the console's pages."""

from typing import Any

from redis import Redis

from shared import clock
from shared.batches.batch import (
    FINALIZING,
    IN_PROGRESS,
    STATES,
    UNFINISHED,
    VALIDATING,
    Batch,
    name_failure,
    new_batch_id,
)
from shared.batches.batch_store import Batches
from tests.builders import stand_in_input


def add_batch(
    redis: Redis,
    key_id: str,
    status: str = VALIDATING,
    text: str = "text",
    *,
    input_file_id: str = "file-in",
    **fields: Any,
) -> Batch:
    """A batch of 40 requests in this state, with `text` where callers may put any."""
    store, now = Batches(redis), int(clock.now())
    batch = Batch(
        new_batch_id(),
        key_id,
        "/v1/chat/completions",
        input_file_id,
        "file-out",
        "file-err",
        now - 600,
        "24h",
        now + 85_000,
    )
    with stand_in_input(redis, input_file_id):
        store.add(batch)
    has_begun = status not in (VALIDATING, "failed")
    progress = {"total": 40, "completed": 25, "failed": 3, "in_progress_at": now - 500} if has_begun else {}
    progress |= {"samples": [[now - 240, 14], [now - 5, 28]]} if has_begun else {}
    progress |= {name_failure("http_400"): 2, name_failure("model_not_found"): 1} if has_begun else {}
    changes: dict[str, Any] = {"status": status, "model": text, "metadata": {text: text}, **progress, **fields}
    if status == "failed":
        changes["errors"] = [{"code": "invalid_json_line", "message": text, "param": None, "line": 3}]
    if status not in (VALIDATING, IN_PROGRESS, FINALIZING):
        changes[f"{status}_at"] = now
    if status in ("cancelling", "cancelled"):
        changes["reason"] = "operator"
    store.change(batch, (VALIDATING,), changes, ends=status not in UNFINISHED)
    return store.get(batch.id)


def fill_batches(redis: Redis, key_id: str, text: str) -> list[Batch]:
    """One in each state, of which that in progress stands still; and one that will expire before it is done."""
    now = int(clock.now())
    still = {"samples": [[now - 750, 28]], "hindrance": "no_account"}
    found = [add_batch(redis, key_id, status, text, **(still if status == IN_PROGRESS else {})) for status in STATES]
    return [*found, add_batch(redis, key_id, IN_PROGRESS, text, expires_at=now + 60)]
