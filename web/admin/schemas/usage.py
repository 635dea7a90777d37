"""Models of usage sums and the request log."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from web.admin.schemas.fields import Identifier, Page, StrictModel, Text, Timestamp


class UsageQuery(StrictModel):
    """Query for usage; without times, it covers the last 24 hours."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    step: Annotated[Literal["hour", "day"], Field(description="granularity of the sums")] = "hour"
    by: Annotated[
        str,
        Field(
            max_length=60,
            pattern=r"^((time|key|pool|model|credential)(,(time|key|pool|model|credential))*)?$",
            description="names to group by, separated by commas; `credential` combines only with `time` and `pool`",
        ),
    ] = ""
    key: Identifier = ""
    pool: Identifier = ""
    model: Text = ""
    credential: Identifier = ""
    format: Annotated[Literal["json", "csv", "jsonl"], Field(description="format of the response")] = "json"


class UsageReport(BaseModel):
    """Rows of usage: the names grouped by, `requests`, `failed` and token counts."""

    data: list[dict[str, Any]]


class LogQuery(Page):
    """Filter and page of the request log, newest first."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    request: Identifier = ""
    key: Identifier = ""
    pool: Identifier = ""
    model: Text = ""
    credential: Identifier = ""
    endpoint: Identifier = ""
    code: Identifier = ""
    outcome: Literal["", "ok", "failed"] = ""
    format: Annotated[
        Literal["json", "csv", "jsonl"], Field(description="`csv` and `jsonl` return all entries without paging")
    ] = "json"


class LogPage(BaseModel):
    """A page of entries; `next` is the cursor of the next page, null on the last."""

    data: list[dict[str, Any]]
    next: str | None
