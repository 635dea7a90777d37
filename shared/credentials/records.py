"""States of a credential, and its record without tokens.

The hash `farm:credential:<id>` has these fields (times are seconds since the epoch):

| field | meaning | written by |
| --- | --- | --- |
| pool | its pool, `<pool>~<id>` for a private credential | store.py, private.py |
| kind | its kind (kinds.py), '' for `refresh_token` | store.py |
| label | the operator's note | store.py, private.py |
| added_at | time it was added | store.py, private.py |
| sealed | refresh token or another kind's secret, sealed for the id | store.py, private.py, store_grant.lua |
| fingerprint | SHA-256 of the current refresh token | store.py, private.py, store_grant.lua |
| origin | SHA-256 of the token as imported, which identifies it in a repeated import | store.py, private.py |
| token_origin | origin of its token endpoint, `simulator`, '' if not known | store.py, private.py, token_origin.py |
| identity | SHA-256 of issuer and subject, once known; of a client or service account | workers/sign_in, store.py |
| issuer, subject | who the account is, as its tokens or the userinfo endpoint say | workers/sign_in |
| account | its e-mail address or name; lists show it masked | workers/sign_in |
| aliases | SHA-256 of earlier tokens or secrets that a newer one has replaced | replace_token.lua, replace_secret.lua |
| previous | sealed refresh token before the last rotation, until the next one | store_grant.lua |
| rotations | number of rotations | store_grant.lua |
| access | sealed access token | store_grant.lua |
| access_expires | time it expires | store_grant.lua |
| refreshed_at | time of the last token refresh | store_grant.lua |
| rotated_at | time of the last rotation | store_grant.lua, replace_token.lua |
| refusals | refusals of the refresh token so far (workers/credentials/refusals.py) | store_refusals.lua |
| state_since | since when state and reason are the same | store.py, private.py, change_state.lua |
| reason | reason for the state | change_state.lua |
| until | end of the cooldown, '' if there is none | change_state.lua |
| evidence | status and code that stand for the state (evidence.py), '' for none | change_state.lua |
| retry_after | seconds to wait that came with them, '' for none | change_state.lua |
| state_before, reason_before, … | these before it was suspended, for the time of a move | suspend.lua |
| exported_at | time the refresh token was last exported | store.py |
| export_outdated | 1 if the token has rotated since, which may invalidate the exported one | store_grant.lua |
| fence | last fencing token issued with a lease | claim.lua |

The state itself is in `farm:credentials:<pool>`, limits of its own are in `farm:credential-limits`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared import clock
from shared.credentials.evidence import NO_EVIDENCE, Evidence
from shared.pacing.account_limits import OwnLimits

#: `foreign`: it belongs to another token endpoint than its pool now has (token_origin.py).
State = Literal["active", "cooling", "disabled", "dead", "foreign"]
STATES: tuple[State, ...] = ("active", "cooling", "disabled", "dead", "foreign")
#: States in which a credential has workers; in a cooldown they take no jobs.
USABLE_STATES: tuple[State, ...] = ("active", "cooling")
#: Fields of the hash that hold no token and are shown to operators.
VISIBLE_FIELDS = (
    *("label", "added_at", "refreshed_at", "rotations", "access_expires", "reason", "until", "state_since"),
    *("exported_at", "export_outdated", "token_origin", "issuer", "subject", "account", "kind", "in_doubt_since"),
    *("rotated_at", "evidence", "retry_after"),
)
#: Those of them that are times.
TIME_FIELDS = tuple(name for name in VISIBLE_FIELDS if name.endswith(("_at", "until", "since", "expires")))
#: Fields that say whose account it is: the digest by which doubles are found, and what it was made of.
ACCOUNT_FIELDS = ("identity", "issuer", "subject", "account")
#: Comes before each script that changes a state.
CHANGE_STATE = Path(__file__).with_name("change_state.lua")


def known_state(state: str) -> str:
    """The state as this version knows it; one of a newer version is shown as `disabled`, as it has no workers here."""
    return state if state in STATES else "disabled"


@dataclass(frozen=True)
class CredentialRecord:
    """A credential without its tokens. Times are seconds since the epoch, 0 for never."""

    id: str
    pool: str
    state: str
    label: str = ""
    added_at: float = 0
    refreshed_at: float = 0
    rotated_at: float = 0
    rotations: int = 0
    access_expires: float = 0
    reason: str = ""
    #: What the upstream or the token endpoint has said.
    evidence: Evidence = NO_EVIDENCE
    until: float = 0
    #: Since when state and reason are the same.
    state_since: float = 0
    exported_at: float = 0
    #: Since when a refresh without an answer may have rotated the refresh token; 0 when the credential isn't in doubt.
    in_doubt_since: float = 0
    #: Whether the refresh token has rotated since its export.
    export_outdated: bool = False
    #: The worker process that holds the lease, '' for none.
    owner: str = ""
    #: The origin of the token endpoint that it was given for, `simulator`, or '' if not known yet.
    token_origin: str = ""
    #: Who the account is, '' while that is not known.
    issuer: str = ""
    subject: str = ""
    #: E-mail address or name of the account.
    account: str = ""
    kind: str = "refresh_token"
    #: Limits of its own (shared/pacing/account_limits.py); None leaves it to the pool, 0 stands for no limit.
    account_rpm: int | None = None
    account_tpm: int | None = None
    account_rpd: int | None = None
    account_gap: float | None = None
    #: Model (the upstream's name) for which the account is limited -> until when; if `active`, it serves the others.
    resting_models: Mapping[str, float] = field(default_factory=dict)

    @property
    def own_limits(self) -> OwnLimits:
        return OwnLimits(self.account_rpm, self.account_tpm, self.account_rpd, self.account_gap)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "evidence": dict(vars(self.evidence)), "resting_models": dict(self.resting_models)}

    def to_masked_dict(self) -> dict[str, Any]:
        """As lists show it: the account can be recognised, but not read."""
        return {**self.to_dict(), "account": mask_account(self.account)}


@dataclass(frozen=True)
class StateChange:
    """A change of the state or of the reason for it. `time` is in seconds since the epoch."""

    time: float
    state: str
    reason: str
    evidence: Evidence = NO_EVIDENCE


def mask_account(account: str) -> str:
    """An e-mail address or a name that can be recognised, but not read: `a***e@example.com`, `A***e`."""
    local, at, domain = account.partition("@")
    if not local:
        return ""
    masked = f"{local[0]}***{local[-1]}" if len(local) > 3 else f"{local[0]}***"
    return f"{masked}{at}{domain}"


def build_name(label: bytes | None, account: bytes | None) -> str:
    """What lists call a credential: its label, else its account, masked, else ''."""
    return (label or b"").decode() or mask_account((account or b"").decode())


def build_record(
    pool: str,
    credential_id: str,
    state: str,
    values: list[bytes | None],
    lease: bytes | None,
    rests: Mapping[bytes, bytes],
    own_limits: bytes | None,
) -> CredentialRecord:
    """`values` are those of VISIBLE_FIELDS, in order; the others are those of the keys of these names."""
    fields = {name: value.decode() for name, value in zip(VISIBLE_FIELDS, values, strict=True) if value}
    times: dict[str, Any] = {name: float(fields.get(name) or 0) for name in TIME_FIELDS}
    limits = OwnLimits.decode((own_limits or b"").decode()).to_dict()
    return CredentialRecord(
        id=credential_id,
        pool=pool,
        state=known_state(state),
        label=fields.get("label", ""),
        reason=fields.get("reason", ""),
        rotations=int(fields.get("rotations", 0)),
        export_outdated=bool(fields.get("export_outdated")),
        token_origin=fields.get("token_origin", ""),
        issuer=fields.get("issuer", ""),
        subject=fields.get("subject", ""),
        account=fields.get("account", ""),
        kind=fields.get("kind", "refresh_token"),
        evidence=Evidence.decode(fields.get("evidence", ""), fields.get("retry_after", "")),
        owner=lease.decode().rpartition(":")[0] if lease else "",
        resting_models=select_rests(rests),
        **limits,
        **times,
    )


def select_rests(rests: Mapping[bytes, bytes]) -> dict[str, float]:
    """Model -> until when the credential rests for it, of those whose rest is not over."""
    found = {model.decode(): float(until) for model, until in rests.items()}
    return {model: until for model, until in sorted(found.items()) if until > clock.now()}


def build_state_change(time: float, values: Mapping[bytes, bytes]) -> StateChange:
    """`values` are those of the history's entry; one of an earlier version has no evidence."""
    state, reason, evidence = (values.get(name, b"").decode() for name in (b"state", b"reason", b"evidence"))
    return StateChange(time, state, reason, Evidence.decode(evidence))
