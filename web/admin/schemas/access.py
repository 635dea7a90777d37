"""Models of admin tokens, sessions and the audit log."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.api_keys.admin_tokens import AdminToken
from shared.observability.audit_log import AuditEntry
from web.admin.schemas.fields import Identifier, Page, StrictModel, Text


class NewAdminToken(StrictModel):
    """An admin token to create."""

    name: Annotated[Text, Field(min_length=1)]
    role: Literal["admin", "viewer"] = "viewer"


class CreatedAdminToken(AdminToken):
    """A new admin token with its secret, which is not shown again."""

    token: str


class AdminTokenList(BaseModel):
    """All admin tokens."""

    data: list[AdminToken]


class Session(BaseModel):
    """A login session of the console."""

    id: str
    token_id: Annotated[str, Field(description="the admin token that opened it")]
    role: Literal["admin", "viewer"]
    address: Annotated[str, Field(description="where the login came from")]
    created_at: float
    used_at: Annotated[float, Field(description="last use, up to 30 seconds late")]
    expires_at: Annotated[float, Field(description="latest end; an idle session ends after an hour")]
    current: Annotated[bool, Field(description="whether this request belongs to it")]


class SessionList(BaseModel):
    """All login sessions, the last used one first."""

    data: list[Session]


class AuditQuery(Page):
    """Filter and page of the audit log."""

    target: Annotated[Identifier, Field(description="only changes of this object, by its id or name")] = ""


class AuditPage(BaseModel):
    """A page of changes, newest first; `next` is the cursor of the next page, null on the last."""

    data: list[AuditEntry]
    next: str | None
