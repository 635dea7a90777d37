"""The playground's request, and the events with which it replies."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from shared.api_keys.api_key import coerce_integer
from web.admin.schemas.fields import Identifier, StrictModel

#: Characters of one text.
MAX_TEXT_LENGTH = 200_000
Prompt = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]


class PlaygroundRequest(StrictModel):
    """A chat, and where it goes."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    user: Annotated[Prompt, Field(min_length=1, description="text of the user")]
    system: Annotated[Prompt, Field(description="text of the system; empty for none")] = ""
    pool: Annotated[Identifier, Field(description="empty: a pool that serves the model, as for callers")] = ""
    credential: Annotated[
        Identifier, Field(description="only this credential, in whatever state, past the queue and without retries")
    ] = ""
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(coerce_integer)] | None = None
    stream: bool = True


class Admitted(BaseModel):
    """Event `admitted`: the request is on its way."""

    request: str
    pool: str
    credential: Annotated[str, Field(description="empty: any")]
    body: Annotated[str, Field(description="what the farm was asked, as JSON")]


class WaitState(BaseModel):
    """Event `waiting`, every second until the first byte."""

    state: Annotated[
        str,
        Field(
            description="`queued`, `held` by a limit of the key, `retry`, `running`; `sent` to one credential; "
            "`upstream_down` or `paused` while the pool takes no request"
        ),
    ]
    position: Annotated[int | None, Field(description="turn in the order of service; null if not known")]
    eta: Annotated[float | None, Field(description="seconds until it is started; null if that can't be told")]
    credential: str = ""
    credential_name: str = ""


class Started(BaseModel):
    """Event `started`: the first byte has come."""

    status: int
    attempts: int
    queue_wait_ms: int
    first_byte_ms: int
    content_type: str
    credential: Annotated[str, Field(description="empty if it is not known yet")]
    credential_name: str


class Piece(BaseModel):
    """Event `piece`: a part of the reply."""

    raw: Annotated[str, Field(description="as it came")]
    text: Annotated[str, Field(description="what of it is text of the reply")]


class Tried(BaseModel):
    """A failed attempt."""

    credential: str
    credential_name: str
    outcome: str
    status: int
    milliseconds: int


class Ended(BaseModel):
    """Event `ended`: what the request log says of the request, the last event."""

    status: int
    code: Annotated[str, Field(description="why it failed; empty if it did not")]
    message: str
    credential: str = ""
    credential_name: str = ""
    attempts: int = 0
    tried: list[Tried] = []
    queue_ms: int = 0
    first_ms: int = 0
    total_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: Annotated[bool, Field(description="whether the farm has counted the tokens itself")] = False
    tokens_per_second: Annotated[float | None, Field(description="after the first byte; null if not known")] = None
    is_logged: Annotated[bool, Field(description="false: the log had no entry yet, and the numbers are missing")] = True
