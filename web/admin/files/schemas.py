"""Models of files in the admin API. Times are seconds since the epoch."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from web.admin.schemas.fields import Identifier, Page


class FileQuery(Page):
    """Which files are listed."""

    key: Annotated[Identifier, Field(description="only those of this API key")] = ""
    purpose: Annotated[Literal["", "batch", "batch_output"], Field(description="only those for this")] = ""


class File(BaseModel):
    """A file of an API key, without its content."""

    id: str
    key: Annotated[str, Field(description="id of the API key that it belongs to")]
    key_name: Annotated[str, Field(description="name of that key, '' for none")]
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: Annotated[int, Field(description="when it is deleted")]


class FilePage(BaseModel):
    """A page of files."""

    data: list[File]
    next: str | None
    total: Annotated[int, Field(description="files of all keys, or of the one that was asked for")]
