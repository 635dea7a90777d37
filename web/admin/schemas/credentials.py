"""Models of credentials, their states and operations."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.credentials.importing.secret_choice import MAX_TOKEN_LENGTH
from shared.credentials.records import STATES
from shared.pacing.account_limits import MAX_COUNT, MAX_GAP_SECONDS
from web.admin.schemas.fields import Identifier, Page, SearchText, StrictModel, Text, ordered

#: Fields by which lists can be sorted.
CREDENTIAL_ORDERS = ("state", "state_since", "until", "reason", "label", "added_at", "refreshed_at", "rotations")
#: Characters of a text of credentials, which the front reads in one piece.
MAX_IMPORT_CHARACTERS = 2_000_000


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
