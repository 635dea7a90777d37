"""Request and response models of the admin API and its document. Times are seconds since the epoch."""

import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.api_keys.admin_tokens import AdminToken
from shared.api_keys.api_key import ApiKey, KeyFields
from shared.credentials.importing.secret_choice import MAX_TOKEN_LENGTH
from shared.credentials.records import STATES
from shared.observability.audit_log import AuditEntry
from shared.pacing.account_limits import MAX_COUNT, MAX_GAP_SECONDS

#: Text without control characters, which could corrupt a terminal or a log.
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Identifier = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: Characters of a text of credentials, which the front reads in one piece.
MAX_IMPORT_CHARACTERS = 2_000_000
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


#: Fields by which lists can be sorted.
CREDENTIAL_ORDERS = ("state", "state_since", "until", "reason", "label", "added_at", "refreshed_at", "rotations")
KEY_ORDERS = ("name", "created_at", "last_used_at", "expires_at")


class Empty(StrictModel):
    """An empty object."""


# Credentials


StateNames = Annotated[
    str,
    Field(
        max_length=60,
        pattern=rf"^(({'|'.join(STATES)})(,({'|'.join(STATES)}))*)?$",
        description="only credentials in this state, or in one of several, separated by commas",
    ),
]


class CredentialQuery(Page):
    """Filter and page of the credentials."""

    pool: Annotated[Identifier, Field(description="only credentials of this pool")] = ""
    state: StateNames = ""
    reason: Annotated[Identifier, Field(description="only credentials whose state has this reason")] = ""
    text: SearchText = ""
    sort: Annotated[
        Literal["", *ordered(*CREDENTIAL_ORDERS)],  # type: ignore[valid-type]
        Field(description="order of the list, `-` turns it round; by pool, then oldest first, without"),
    ] = ""


DryRun = Annotated[bool, Field(description="only report what would become of each; nothing is stored")]


class NewCredentials(StrictModel):
    """Refresh tokens to add."""

    pool: Identifier = "default"
    label: Text = ""
    tokens: Annotated[
        list[Annotated[str, Field(max_length=MAX_TOKEN_LENGTH)]],
        Field(min_length=1, max_length=1000, description="one refresh token each; blanks and duplicates are skipped"),
    ]
    dry_run: DryRun = False


class NewCredentialText(StrictModel):
    """Refresh tokens to add, in a text."""

    pool: Identifier = "default"
    label: Text = ""
    text: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_IMPORT_CHARACTERS,
            description="a file as people keep it: lines, `user----password----token`, JSON, CSV, `name=value`",
        ),
    ]
    dry_run: DryRun = False


class LineReport(BaseModel):
    """Outcome of one entry of an import."""

    number: Annotated[int, Field(description="position in `tokens`, or line of the text, from 1")]
    outcome: Literal["added", "duplicate", "replaced", "blank", "invalid"]
    id: Annotated[str, Field(description="the credential that has the token; empty if none has")]
    reason: Annotated[str, Field(description="why an entry is invalid")] = ""


class ImportResult(BaseModel):
    """Outcome of an import: counts, and each line."""

    added: int
    duplicates: int
    replaced: Annotated[
        int, Field(description="secrets that have replaced the former one of their client or service account")
    ] = 0
    blanks: int
    invalid: int
    lines: list[LineReport]


class StateExplanation(BaseModel):
    """Why a credential is in its state, in sentences; `state_since` and `until` say from when till when."""

    rule: Annotated[str, Field(description="the rule that put it there")]
    next: Annotated[str, Field(description="what happens next")]
    code: Annotated[str, Field(description="error code of the upstream or token endpoint, empty for none")]


class StateEvidence(BaseModel):
    """The response that a state rests on."""

    source: Annotated[str, Field(description="`upstream` or `token_endpoint`, empty when neither has said anything")]
    status: Annotated[int, Field(description="its HTTP status, 0 when there was no response")]
    code: Annotated[
        str, Field(description="its error code; without a response the farm's own code for what happened; may be empty")
    ]
    retry_after: Annotated[
        float | None,
        Field(description="seconds to wait as it said; the farm may have bounded them. Not in the history"),
    ]


class RecentAttempts(BaseModel):
    """Attempts of about the last hour, some seconds late. Those that were a request's fault count neither way."""

    served: int
    failed: int
    success_rate: Annotated[float | None, Field(description="share that was served, 0 to 1; null without an attempt")]
    first_byte_p50_ms: Annotated[
        int | None, Field(description="median time from an attempt's start to its first byte, right to a tenth")
    ]


class FailedAttempt(BaseModel):
    """A failed attempt or token request."""

    at: float
    outcome: Annotated[str, Field(description="outcome label of `farm_attempts_total`")]
    evidence: StateEvidence


class Left(BaseModel):
    """What is left of one limit."""

    name: Annotated[str, Field(description="what it limits, by its header's name: `requests`, `tokens`, …")]
    remaining: float
    limit: Annotated[float | None, Field(description="null if the upstream does not say")]
    reset_at: Annotated[float, Field(description="when it is reset; 0 if that is not known")]


class Allowance(BaseModel):
    """What an account has left, as the upstream's last response with rate limit headers said."""

    at: float
    left: list[Left]


class LimitUse(BaseModel):
    """One of the limits that the farm keeps to for an account, as it counts it."""

    name: Annotated[str, Field(description="`account_rpm`, `account_tpm`, `account_rpd` or `account_gap`")]
    limit: Annotated[float, Field(description="requests, tokens; seconds of the gap")]
    is_own: Annotated[bool, Field(description="whether it is the account's own, in place of its pool's")]
    remaining: Annotated[float | None, Field(description="how much may still be used now; null for the gap")]
    next_at: Annotated[float, Field(description="when the next request fits; 0 if one does now")]
    reset_at: Annotated[float, Field(description="when all of it is free again; 0 if it is now")]


#: Limits of an account's own.
OwnCount = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]
OwnGap = Annotated[float, Field(ge=0, le=MAX_GAP_SECONDS, allow_inf_nan=False, strict=True)]


class KeptTest(BaseModel):
    """The result of the last test, without texts. Times are milliseconds, but `at`."""

    at: float
    ok: bool
    code: Annotated[str, Field(description="error code of whoever has failed, empty for none")]
    status: Annotated[int, Field(description="HTTP status of the chat, or of the token endpoint's refusal")]
    refresh_ms: int
    first_byte_ms: int
    chat_ms: int


class Credential(BaseModel):
    """A credential, without its tokens."""

    id: str
    pool: str
    state: Literal["active", "cooling", "disabled", "dead", "foreign"]
    label: str
    added_at: float
    refreshed_at: float
    rotated_at: Annotated[float, Field(description="when its refresh token last rotated, 0 for never")]
    rotations: int
    access_expires: float
    reason: str
    explanation: StateExplanation
    evidence: StateEvidence
    until: float
    state_since: Annotated[float, Field(description="since when state and reason are the same")]
    exported_at: float
    in_doubt_since: Annotated[
        float, Field(description="since when a refresh without an answer may have rotated the refresh token; 0 if none")
    ]
    export_outdated: Annotated[bool, Field(description="whether the refresh token has rotated since its export")]
    owner: str
    kind: Annotated[str, Field(description="FARM_CREDENTIAL_KIND of its pool when it was added")]
    token_origin: Annotated[
        str, Field(description="origin of the token endpoint that it was given for; empty if not known yet")
    ]
    issuer: Annotated[str, Field(description="issuer of the account, empty while that is not known")]
    subject: Annotated[str, Field(description="the account's id at its issuer")]
    account: Annotated[str, Field(description="its e-mail address or name, masked in lists")]
    resting_models: Annotated[
        dict[str, float],
        Field(description="models, by the upstream's name, for which the account is limited, and until when"),
    ]
    account_rpm: Annotated[
        OwnCount | None, Field(description="limits of its own, as settings of a pool are; null: the pool's; 0: none")
    ]
    account_tpm: OwnCount | None
    account_rpd: OwnCount | None
    account_gap: OwnGap | None
    last_used_at: Annotated[float, Field(description="when its last attempt ended, some seconds late; 0 for never")]
    in_flight: Annotated[int, Field(description="requests that it has now")]
    last_hour: RecentAttempts
    last_failure: Annotated[FailedAttempt | None, Field(description="null if none is known")]
    limits: Annotated[list[LimitUse], Field(description="the limits in force, and what is left of them")]
    allowance: Annotated[Allowance | None, Field(description="null if the upstream has never said")]
    last_test: Annotated[KeptTest | None, Field(description="null if it was never tested")]


class CredentialPage(BaseModel):
    """A page of credentials; `next` is the cursor of the next page, null on the last."""

    data: list[Credential]
    next: str | None
    states: Annotated[dict[str, int], Field(description="number of all matching credentials, by state")]


class CredentialChange(StrictModel):
    """Changes to a credential; omitted fields keep their values."""

    label: Text | None = None
    state: Annotated[
        Literal["active", "disabled"] | None, Field(description="`active` reactivates it from any state")
    ] = None
    account_rpm: Annotated[
        OwnCount | None,
        Field(description="a limit of its own, from its next request on; null leaves it to the pool, 0 is no limit"),
    ] = None
    account_tpm: OwnCount | None = None
    account_rpd: OwnCount | None = None
    account_gap: Annotated[OwnGap | None, Field(description="seconds")] = None


class EnableQuery(StrictModel):
    """Which credentials to reactivate."""

    state: Annotated[Literal["cooling", "disabled", "dead"], Field(description="their present state")]
    since: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="in that state since then or later, seconds since the epoch"),
    ] = 0
    pool: Annotated[Identifier, Field(description="only credentials of this pool")] = ""


class Drain(StrictModel):
    """How long to wait for the running request."""

    seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False, description="at most so long")] = 30.0


class ChangedCredentials(BaseModel):
    """The credentials that were changed."""

    ids: list[str]


class StateEntry(BaseModel):
    """A change of a credential's state, or of what it rests on."""

    time: float
    state: str
    reason: str
    evidence: StateEvidence


class History(BaseModel):
    """State changes of a credential, newest first."""

    data: list[StateEntry]


class TestParameters(StrictModel):
    """Parameters of a test; without a model, the pool's first one is used."""

    model: Text = ""


class OperationResult(BaseModel):
    """Result of an operation on a credential. Times are milliseconds."""

    ok: bool
    error: Annotated[str, Field(description="error message, which contains no tokens")] = ""
    refresh_ms: int = 0
    chat_ms: int = 0
    first_byte_ms: int = 0
    code: Annotated[str, Field(description="error code of whoever has failed, empty for none")] = ""
    status: Annotated[
        int, Field(description="HTTP status of the chat request, or of the token endpoint's refusal; 0 without either")
    ] = 0
    model: str = ""


# API keys

Zone = Annotated[str, Field(json_schema_extra={"enum": sorted(zoneinfo.available_timezones())})]


class NewKey(KeyFields):
    """An API key to create."""

    quota_zone: Zone = KeyFields.model_fields["quota_zone"].default


class KeyChange(NewKey):
    """Changes to an API key; omitted fields keep their values."""


class KeyRotation(StrictModel):
    """A new secret for an API key."""

    grace_hours: Annotated[
        float, Field(ge=0, le=24 * 90, allow_inf_nan=False, description="for how long the former secret is accepted")
    ] = 24


class Key(ApiKey):
    """An API key, without its secret."""

    rotated_at: Annotated[
        float, Field(description="when it got its present secret in place of another; 0 for never")
    ] = 0
    superseded_until: Annotated[float, Field(description="until when a former secret is accepted at most")] = 0
    superseded_ended_at: Annotated[float, Field(description="secrets replaced before then are not accepted")] = 0

    last_used_at: Annotated[float, Field(description="0 for never; up to a second late")] = 0


class KeyLimitUse(BaseModel):
    """One limit of an API key, as it is used now."""

    name: Annotated[str, Field(description="`concurrency`, `rpm`, `tpm`, `quota_tokens` or `quota_requests`")]
    used: int
    limit: int
    reserved: Annotated[int, Field(description="tokens reserved for unfinished requests, beside those used")]
    resets_at: Annotated[float, Field(description="when the quota begins anew; 0 for never, and for other limits")]


class KeyUse(BaseModel):
    """What an API key uses of its limits."""

    limits: Annotated[list[KeyLimitUse], Field(description="those that the key has")]
    held: Annotated[int, Field(description="requests that wait for a limit, of `max_waiting`")]
    refused: Annotated[dict[str, int], Field(description="refused requests of about the last hour, by error code")]


class CreatedKey(Key):
    """A new API key with its secret, which is not shown again."""

    key: str


#: So short that two that are a little longer still fit into a URL.
PatternText = Annotated[str, Field(max_length=150, description="patterns as those of a key, separated by commas")]


class ModelQuery(StrictModel):
    """Patterns to try."""

    models: PatternText = ""
    pools: PatternText = ""


class ServedModel(BaseModel):
    """A model that a pool serves."""

    model: str
    pool: str
    matches: Annotated[bool, Field(description="whether the patterns allow it in this pool")]


class ModelList(BaseModel):
    """The models of all pools; `total` and `matching` count different names."""

    data: list[ServedModel]
    total: int
    matching: int


class KeyQuery(Page):
    """Filter and page of the API keys."""

    state: Annotated[
        Literal["", "enabled", "disabled", "expired", "revoked"], Field(description="only keys in this state")
    ] = ""
    unused_since: Annotated[Timestamp | None, Field(description="only keys that were not used since then")] = None
    quota_above: Annotated[
        float | None,
        Field(
            ge=0, le=100, allow_inf_nan=False, description="only keys that have used more than this share of a quota"
        ),
    ] = None
    text: SearchText = ""
    sort: Annotated[
        Literal["", *ordered(*KEY_ORDERS)],  # type: ignore[valid-type]
        Field(description="order of the list, `-` turns it round; oldest first without"),
    ] = ""


class KeyPage(BaseModel):
    """A page of API keys; `next` is the cursor of the next page, null on the last."""

    data: list[Key]
    next: str | None
    total: Annotated[int, Field(description="number of all matching keys")]


# Pools, live state


class Pool(BaseModel):
    """Configuration of a pool; secrets appear only as `set` or `unset`."""

    name: str
    settings: dict[str, Any]


class PoolPause(BaseModel):
    """Whether a pool is paused."""

    pool: str
    paused_since: Annotated[float, Field(description="since when, in seconds since the epoch; 0 if it is not")]
    paused_by: Annotated[str, Field(description="who has paused it, as in the audit log")]


class PoolList(BaseModel):
    """All pools."""

    data: list[Pool]


class LivePool(BaseModel):
    """Live status of a pool."""

    name: str
    credentials: dict[str, int]
    workers: dict[str, int]
    queue_depth: dict[str, int]
    held: Annotated[dict[str, int], Field(description="requests that wait for a limit of their API key, by band")]
    utilisation: float
    private_credentials: Annotated[int, Field(description="number of private credentials")]
    upstream_down: bool
    token_endpoint_failure: Annotated[
        str,
        Field(
            description="why the breaker of its token endpoint is open, `api_key_refused` while the upstream "
            "refuses its API keys, '' while it is closed"
        ),
    ]
    resting_until: Annotated[
        float,
        Field(
            description="when the first credential comes back while all rest, in seconds since the epoch; 0 while one "
            "is in service"
        ),
    ]
    drain_rate: Annotated[float, Field(description="requests finished per second, 0 if not yet known")]
    paused_since: Annotated[float, Field(description="since when it is paused, 0 if it is not")]
    paused_by: Annotated[str, Field(description="who has paused it, as in the audit log")]


class LiveDurability(BaseModel):
    """Whether Redis confirms that rotated refresh tokens are durable before they are used."""

    state: Annotated[
        str, Field(description="confirmed, unconfirmed, unknown, slow, replicas, write_error or no_aof; the worst one")
    ]
    since: Annotated[float | None, Field(description="seconds since the epoch, null if not known")]


class Live(BaseModel):
    """Live status of the farm."""

    pools: list[LivePool]
    durability: LiveDurability
    worker_processes: int
    web_processes: int


# Usage and log


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


# Admin tokens, audit


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
