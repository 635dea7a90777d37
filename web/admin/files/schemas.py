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
    expires_at: Annotated[int, Field(description="when it is deleted, unless an unfinished batch reads it")]
    batch: Annotated[str, Field(description="batch that has made it, or that has read it last; '' for none")]
    readers: Annotated[
        list[str], Field(description="unfinished batches that read it: it is kept until they have ended")
    ]


class FilePage(BaseModel):
    """A page of files."""

    data: list[File]
    next: str | None
    total: Annotated[int, Field(description="files of all keys, or of the one that was asked for")]


class StorageQuery(BaseModel):
    """How many keys are listed."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class KeyStorage(BaseModel):
    """The files of one API key."""

    key: str
    key_name: Annotated[str, Field(description="name of the key, '' for none")]
    files: int
    bytes: int
    share: Annotated[float, Field(description="used share of max_bytes or max_files, whichever is larger")]


class StorageList(BaseModel):
    """What API keys store, those with most bytes first."""

    data: list[KeyStorage]
    max_bytes: Annotated[int, Field(description="bytes that a key may store (FARM_FILES_BYTES)")]
    max_files: Annotated[int, Field(description="files that a key may store (FARM_FILES_COUNT)")]
