"""Models of the sign-ins in the admin API. Times are seconds since the epoch."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from web.admin.schemas.fields import Identifier, StrictModel, Text


class NewSignIn(StrictModel):
    """A sign-in to begin."""

    pool: Identifier = "default"
    flow: Annotated[
        Literal["browser", "device"],
        Field(description="`browser` comes back to the farm's own address; `device` shows a code (RFC 8628)"),
    ] = "browser"
    label: Annotated[Text, Field(description="label of the new credential")] = ""


class SignInResource(BaseModel):
    """A sign-in, and what has become of it."""

    id: str
    pool: str
    flow: Literal["browser", "device"]
    state: Literal["pending", "done", "failed", "expired"]
    created_at: float
    expires_at: Annotated[float, Field(description="until when it is waited for")]
    url: Annotated[str, Field(description="page that the owner of the account opens")]
    user_code: Annotated[str, Field(description="code to enter there, in the flow `device`")]
    label: str
    error: Annotated[str, Field(description="code of the failure, empty without one")]
    message: Annotated[str, Field(description="the failure in a sentence, which contains no secret")]
    credential_id: Annotated[str, Field(description="the credential that has the account, once it is done")]
    outcome: Annotated[
        Literal["", "added", "replaced"],
        Field(description="`replaced`: the account was known, and its credential has the new token"),
    ]
    account: Annotated[str, Field(description="e-mail address or name of the account, masked")]


class SignInList(BaseModel):
    """The sign-ins of the last hour, newest first."""

    data: list[SignInResource]
