"""Models of batches."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from shared.batches.hindrances import HINDRANCES
from web.admin.schemas.fields import Identifier, Page

Time = Annotated[int, Field(description="seconds since the epoch, 0 for never")]


class BatchQuery(Page):
    """A page of the batches, the newest first."""

    key: Annotated[Identifier, Field(description="only those of this API key")] = ""


class BatchError(BaseModel):
    """What is wrong with the input of a batch."""

    code: str
    message: str
    param: str | None = None
    line: Annotated[int | None, Field(description="line of the input, counted from 1")] = None


class BatchInfo(BaseModel):
    """One batch."""

    id: str
    key: Annotated[str, Field(description="id of the API key")]
    key_name: str
    status: Annotated[
        str, Field(description="validating, in_progress, finalizing, completed, failed, expired, cancelling, cancelled")
    ]
    reason: Annotated[
        str, Field(description="why it was cancelled, if not by its caller: key_revoked, credential_gone, operator")
    ]
    endpoint: str
    model: Annotated[str, Field(description="that of the first request")]
    total: Annotated[int, Field(description="requests; 0 until the input has been validated")]
    completed: int
    failed: int
    failures: Annotated[
        dict[str, int], Field(description="why requests failed (a code, or http_<status> of the upstream) -> how many")
    ]
    running: Annotated[int, Field(description="requests that wait or run now")]
    per_minute: Annotated[
        float | None,
        Field(
            description="requests that ended a minute, in the last five minutes; of a batch that runs no more, on "
            "average; null if that can't be told"
        ),
    ]
    estimated_end_at: Annotated[
        int, Field(description="when it will be done at this pace, in seconds since the epoch, 0 if that can't be told")
    ]
    still_seconds: Annotated[int, Field(description="how long no request has ended, from two minutes on; else 0")]
    hindrance: Annotated[
        str, Field(description=f"what keeps its requests from being run, '' for nothing known: {', '.join(HINDRANCES)}")
    ]
    input_tokens: int
    output_tokens: int
    completion_window: str
    created_at: Time
    in_progress_at: Time
    expires_at: Time
    finalizing_at: Time
    completed_at: Time
    failed_at: Time
    expired_at: Time
    cancelling_at: Time
    cancelled_at: Time
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    errors: list[BatchError]
    metadata: dict[str, Any]


class BatchPage(BaseModel):
    """A page of batches; `next` is the cursor of the next page, null on the last."""

    data: list[BatchInfo]
    next: str | None
