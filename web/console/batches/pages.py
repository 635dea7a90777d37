"""Batches: all of them with their progress, and one with its times, its usage and the faults of its input."""

from typing import Any

from werkzeug.wrappers import Response as BaseResponse

from shared.batches.batch import UNFINISHED
from shared.errors import ApiError
from web.admin.batches import resource
from web.admin.batches.schemas import BatchInfo, BatchQuery
from web.admin.schemas.fields import Empty
from web.console.live.fragments import LIVE_PAGES, LivePage
from web.console.live.stream import INTERVALS, read_interval
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.lists import read_text
from web.services import services

SHOWN = 50
#: When a batch came into its states, in their order.
TIMES = (
    *("created_at", "in_progress_at", "cancelling_at", "finalizing_at"),
    *("completed_at", "failed_at", "expired_at", "cancelled_at"),
)


@blueprint.get("/batches")
def batches() -> str:
    query = BatchQuery(limit=SHOWN, cursor=read_text("cursor")[:100], key=read_text("key")[:100])
    page = resource.list_batches(query)
    # Only the newest batches change by themselves.
    is_live = not query.cursor and not query.key
    every = read_interval() if is_live else "0"
    return render_page(
        "batches.html",
        active="batches",
        page=page,
        query=query,
        every=every,
        intervals=INTERVALS,
    )


@blueprint.get("/batches/<batch_id>")
def batch(batch_id: str) -> str:
    values = read_batch(batch_id)
    every = "0" if values["has_ended"] else read_interval()
    return render_page("batch.html", active="batches", **values, every=every, intervals=INTERVALS)


def read_batch(batch_id: str) -> dict[str, Any]:
    """What the page of one batch shows of the moment. Raises ApiError."""
    found = resource.get_batch(batch_id)
    file_ids = [id_ for id_ in (found.input_file_id, found.output_file_id, found.error_file_id) if id_]
    return {
        "batch": found,
        "has_ended": found.status not in UNFINISHED,
        "times": list_times(found),
        "stored_files": services().files.find_stored(file_ids),
    }


def read_batch_now(batch_id: str) -> dict[str, Any]:
    """As `read_batch`; of one whose record was removed meanwhile, only that."""
    try:
        return read_batch(batch_id)
    except ApiError:
        return {"batch": None, "has_ended": True}


@blueprint.post("/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> BaseResponse:
    resource.cancel_batch(batch_id, Empty())
    return go_to("batch", "batch_cancelled", batch_id=batch_id)


@blueprint.post("/batches/<batch_id>/remove")
def remove_batch(batch_id: str) -> BaseResponse:
    resource.delete_batch(batch_id)
    return go_to("batches", "batch_removed")


def list_times(batch: BatchInfo) -> dict[str, int]:
    """State -> when the batch came into it."""
    return {name.removesuffix("_at"): getattr(batch, name) for name in TIMES if getattr(batch, name)}


def read_now() -> dict[str, Any]:
    """What the page shows of the moment."""
    return {"page": resource.list_batches(BatchQuery(limit=SHOWN))}


LIVE_PAGES["batches"] = LivePage("_batches_live.html", lambda _: read_now())
LIVE_PAGES["batch"] = LivePage("_batch_live.html", read_batch_now, is_final=lambda values: bool(values["has_ended"]))
