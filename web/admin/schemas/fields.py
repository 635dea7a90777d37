"""What models of the admin API have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Text without control characters, which could corrupt a terminal or a log.
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Identifier = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Timestamp = Annotated[float, Field(ge=0, le=2**40, allow_inf_nan=False)]


class StrictModel(BaseModel):
    """Base of request models; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(StrictModel):
    """Page of a list."""

    limit: Annotated[int, Field(ge=1, le=1000, description="maximum entries")] = 100
    cursor: Annotated[str, Field(max_length=100, description="`next` of the previous page")] = ""


SearchText = Annotated[
    Identifier,
    Field(
        description="only what contains this in its id, name or account as the list shows them; with `*`, as a whole"
    ),
]


def ordered(*fields: str) -> tuple[str, ...]:
    """The values of `sort` for these fields."""
    return tuple(f"{sign}{field}" for field in fields for sign in ("", "-"))


class Empty(StrictModel):
    """An empty object."""
