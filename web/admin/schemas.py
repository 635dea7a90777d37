"""What the admin API takes and gives, as models; the document is made of them. Times are seconds since the epoch."""

import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.api_keys.admin_tokens import AdminToken
from shared.api_keys.api_key import ApiKey, KeyFields
from shared.credentials.token_import import MAX_TOKEN_LENGTH
from shared.observability.audit_log import AuditEntry

#: A name that a caller of the API gives; no sign in it that a terminal or a log would trip over.
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Identifier = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Timestamp = Annotated[float, Field(ge=0, le=2**40, allow_inf_nan=False)]


class StrictModel(BaseModel):
    """What is sent: a field that nobody knows is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(StrictModel):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=1000, description="most entries")] = 100
    cursor: Annotated[str, Field(max_length=100, description="`next` of the page before")] = ""


class Empty(StrictModel):
    """Nothing."""


# Credentials


class CredentialQuery(Page):
    """Which credentials."""

    pool: Annotated[Identifier, Field(description="only of this pool")] = ""
    state: Annotated[Literal["", "active", "cooling", "disabled", "dead"], Field(description="only in this state")] = ""


class NewCredentials(StrictModel):
    """Refresh tokens to add."""

    pool: Identifier = "default"
    label: Text = ""
    tokens: Annotated[
        list[Annotated[str, Field(max_length=MAX_TOKEN_LENGTH)]],
        Field(min_length=1, max_length=1000, description="a refresh token each; blanks and duplicates are skipped"),
    ]


class LineReport(BaseModel):
    """What became of one line."""

    number: int
    outcome: Literal["added", "duplicate", "blank", "invalid"]
    id: str


class ImportResult(BaseModel):
    """What became of all."""

    added: int
    duplicates: int
    blanks: int
    invalid: int
    lines: list[LineReport]


class Credential(BaseModel):
    """A credential; never its token."""

    id: str
    pool: str
    state: Literal["active", "cooling", "disabled", "dead"]
    label: str
    added_at: float
    refreshed_at: float
    rotations: int
    access_expires: float
    reason: str
    until: float
    state_since: float
    exported_at: float
    export_outdated: Annotated[bool, Field(description="whether its token has rotated since it was exported")]
    owner: str


class CredentialPage(BaseModel):
    """Credentials, and where the next page begins; null after the last."""

    data: list[Credential]
    next: str | None


class CredentialChange(StrictModel):
    """What may be changed of a credential."""

    label: Text | None = None
    state: Annotated[
        Literal["active", "disabled"] | None, Field(description="`active` puts it into service from whatever state")
    ] = None


class StateEntry(BaseModel):
    """A state that a credential went into."""

    time: float
    state: str
    reason: str


class History(BaseModel):
    """Its states, newest first."""

    data: list[StateEntry]


class TestParameters(StrictModel):
    """A test: with which model; the first that the pool serves when none is named."""

    model: Text = ""


class OperationResult(BaseModel):
    """What a worker has found when it tried a credential. Times are milliseconds."""

    ok: bool
    error: Annotated[str, Field(description="why not, without any token in it")] = ""
    refresh_ms: int = 0
    chat_ms: int = 0
    first_byte_ms: int = 0
    status: Annotated[int, Field(description="of the chat, 0 when there was none")] = 0
    model: str = ""


# API keys

Zone = Annotated[str, Field(json_schema_extra={"enum": sorted(zoneinfo.available_timezones())})]


class NewKey(KeyFields):
    """An API key to make."""

    quota_zone: Zone = KeyFields.model_fields["quota_zone"].default


class KeyChange(NewKey):
    """What is to change of a key; what is not named stays."""


class Key(ApiKey):
    """An API key; never the secret itself."""

    last_used_at: Annotated[float, Field(description="0 for never; a second late")] = 0


class CreatedKey(Key):
    """A new key, with the secret for the only time."""

    key: str


class KeyPage(BaseModel):
    """API keys, and where the next page begins; null after the last."""

    data: list[Key]
    next: str | None


# Pools, live state


class Pool(BaseModel):
    """A pool as configured; secrets only as `set` or `unset`."""

    name: str
    settings: dict[str, Any]


class PoolList(BaseModel):
    """Every pool."""

    data: list[Pool]


class LivePool(BaseModel):
    """What runs in a pool now."""

    name: str
    credentials: dict[str, int]
    workers: dict[str, int]
    queue_depth: dict[str, int]
    utilisation: float
    private_credentials: Annotated[int, Field(description="accounts that callers have brought themselves")]
    upstream_down: bool
    drain_rate: Annotated[float, Field(description="requests served per second, 0 when not known yet")]


class Live(BaseModel):
    """What runs now."""

    pools: list[LivePool]
    worker_processes: int
    web_processes: int


# Usage and log


class UsageQuery(StrictModel):
    """What was used; of the last day when no time is given."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    step: Annotated[Literal["hour", "day"], Field(description="which sums are read")] = "hour"
    by: Annotated[
        str,
        Field(
            max_length=60,
            pattern=r"^((time|key|pool|model|credential)(,(time|key|pool|model|credential))*)?$",
            description="what the rows are of, with commas; `credential` goes with `time` and `pool` only",
        ),
    ] = ""
    key: Identifier = ""
    pool: Identifier = ""
    model: Text = ""
    credential: Identifier = ""
    format: Annotated[Literal["json", "csv", "jsonl"], Field(description="of the answer")] = "json"


class UsageReport(BaseModel):
    """Rows of usage: the names asked for, and `requests`, `failed` and tokens."""

    data: list[dict[str, Any]]


class LogQuery(Page):
    """Which entries of the request log, newest first."""

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
        Literal["json", "csv", "jsonl"], Field(description="`csv` and `jsonl` give all at once, without pages")
    ] = "json"


class LogPage(BaseModel):
    """Entries, and where the next page begins; null after the last."""

    data: list[dict[str, Any]]
    next: str | None


# Admin tokens, audit


class NewAdminToken(StrictModel):
    """An admin token to make."""

    name: Annotated[Text, Field(min_length=1)]
    role: Literal["admin", "viewer"] = "viewer"


class CreatedAdminToken(AdminToken):
    """A new token, with the secret for the only time."""

    token: str


class AdminTokenList(BaseModel):
    """Every admin token."""

    data: list[AdminToken]


class AuditPage(BaseModel):
    """Changes, newest first, and where the next page begins; null after the last."""

    data: list[AuditEntry]
    next: str | None
