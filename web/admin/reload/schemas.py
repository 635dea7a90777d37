"""Models of a reload."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class SettingChange(BaseModel):
    """A setting that differs between what runs and what is configured; without a name, the pool as a whole."""

    kind: Literal["changed", "added", "removed"]
    pool: Annotated[str, Field(description="empty for a setting of the farm")]
    name: str
    before: Annotated[str, Field(description="in force; of a secret only `set` or `unset`; empty for nothing")]
    after: Annotated[str, Field(description="configured")]
    needs_restart: Annotated[bool, Field(description="whether only a restart puts it into force")]


class Reload(BaseModel):
    """What a reload would change, and how the last one has ended."""

    changes: list[SettingChange]
    problem: Annotated[str, Field(description="why the configured settings are not valid; empty if they are")]
    is_possible: Annotated[
        bool, Field(description="whether the front can reload the farm: `./farm up` has started it, on this host")
    ]
    state: Annotated[
        Literal["none", "running", "done", "failed"], Field(description="of the last reload that was begun here")
    ]
    error: Annotated[str, Field(description="why the last reload has failed")]
    note: Annotated[str, Field(description="what is to be said beside a success")]
    begun_at: Annotated[float, Field(description="0 for never")]
