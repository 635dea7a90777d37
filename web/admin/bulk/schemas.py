"""Models of operations on many credentials."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from web.admin.schemas.credentials import StateNames
from web.admin.schemas.fields import Identifier, Page, StrictModel, Text

#: Ids in one request, which must fit into a body of MAX_ADMIN_BYTES.
MAX_CREDENTIALS = 2_000


class BulkSelection(StrictModel):
    """All credentials that match, as in the list of credentials."""

    pool: Identifier = ""
    state: StateNames = ""
    reason: Identifier = ""
    text: Identifier = ""


class NewBulkOperation(StrictModel):
    """What to do, and with which credentials: those with these ids, or all that match."""

    action: Annotated[
        Literal["test", "refresh", "enable", "disable", "drain", "relabel", "remove"],
        Field(description="`drain`: disable them, and wait until their running requests have ended"),
    ]
    ids: Annotated[list[Identifier], Field(max_length=MAX_CREDENTIALS)] = Field(default_factory=list)
    matching: BulkSelection | None = None
    label: Annotated[Text | None, Field(description="the label that `relabel` gives them all")] = None

    @model_validator(mode="after")
    def check_selection(self) -> "NewBulkOperation":
        if bool(self.ids) == (self.matching is not None):
            raise ValueError("give either ids or matching")
        if (self.action == "relabel") != (self.label is not None):
            raise ValueError("relabel, and nothing else, takes a label")
        return self


class BulkOperation(BaseModel):
    """An operation on many credentials, and how far it is. Times are seconds since the epoch."""

    id: str
    action: str
    state: Annotated[
        Literal["running", "done", "cancelled", "interrupted"],
        Field(description="`interrupted`: the front that carried it out has ended"),
    ]
    total: int
    done: int
    outcomes: Annotated[
        dict[str, int], Field(description="number of credentials by what has become of them: `ok`, or why not")
    ]
    started_at: float
    updated_at: float


class ResultQuery(Page):
    """Which results of an operation."""

    outcome: Annotated[str, Field(max_length=200, description="only credentials with this outcome")] = ""


class BulkResult(BaseModel):
    """What has become of a credential."""

    credential: str
    credential_name: str
    outcome: str


class BulkResultPage(BaseModel):
    """A page of results; `next` is the cursor of the next page, null on the last."""

    data: list[BulkResult]
    next: str | None
