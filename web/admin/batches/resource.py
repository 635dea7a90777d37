"""Admin API: batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared import clock
from shared.batches.batch import BY_OPERATOR, Batch
from shared.batches.pace import describe_progress
from shared.batches.removal import remove_batch
from shared.errors import ApiError, Conflict, NotFound
from shared.observability.names_by_id import find_key_names
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.batches.schemas import BatchInfo, BatchPage, BatchQuery
from web.admin.schemas.fields import Empty
from web.services import services


@router.route("GET", "/batches", query=BatchQuery, response=BatchPage, errors=(404,))
def list_batches(query: BatchQuery) -> BatchPage:
    """List the batches of all API keys, newest first."""
    try:
        found = services().batches.store.list_newest(query.key or None, query.cursor, query.limit + 1)
    except NotFound:
        raise ApiError(404, "not_found", "the cursor's entry no longer exists", param="cursor") from None
    page = describe_batches(found[: query.limit])
    return BatchPage(data=page, next=page[-1].id if len(found) > query.limit else None)


@router.route("GET", "/batches/<batch_id>", response=BatchInfo)
def get_batch(batch_id: str) -> BatchInfo:
    """Get a batch."""
    with map_errors():
        return describe_batches([services().batches.store.get(batch_id)])[0]


@router.route("POST", "/batches/<batch_id>/cancel", body=Empty, response=BatchInfo, errors=(409,))
def cancel_batch(batch_id: str, body: Empty) -> BatchInfo:
    """Cancel a batch; what is done is kept, and it ends within seconds."""
    with map_errors():
        batch = services().batches.store.cancel(batch_id, reason=BY_OPERATOR)
    record_change("batch.cancel", batch_id)
    return describe_batches([batch])[0]


@router.route("DELETE", "/batches/<batch_id>", status=204, errors=(409,))
def delete_batch(batch_id: str) -> None:
    """Delete the record of a batch that has ended; its files stay."""
    with map_errors():
        batch = remove_batch(services().redis, batch_id)
    record_change("batch.remove", batch_id, {"key": batch.key})


@contextmanager
def map_errors() -> Iterator[None]:
    """Raises ApiError 404 or 409 for what the store refuses."""
    try:
        yield
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None


def describe_batches(batches: Sequence[Batch]) -> list[BatchInfo]:
    names = find_key_names(services().redis, [batch.key for batch in batches])
    running = services().batches.lines.count_running([batch.id for batch in batches])
    return [describe_batch(batch, names.get(batch.key, ""), running[batch.id]) for batch in batches]


def describe_batch(batch: Batch, key_name: str, running: int) -> BatchInfo:
    described = batch.describe()
    replaced = {name: described[name] for name in ("output_file_id", "error_file_id")}
    progress = describe_progress(batch, clock.now())
    values = {**vars(batch), **replaced, **progress, "metadata": batch.metadata or {}}
    return BatchInfo.model_validate({**values, "key_name": key_name, "running": running})
