"""Explains the state of a credential: the rule that put it there, and what happens next. No I/O."""

from dataclasses import dataclass, replace

from shared.credentials.activity.activity import LastFailure
from shared.credentials.evidence import NO_EVIDENCE, Evidence
from shared.credentials.pool_rest import API_KEYS_REFUSED
from shared.credentials.records import CredentialRecord


@dataclass(frozen=True)
class Explanation:
    """Two sentences without a secret; `code` is the upstream's or the token endpoint's, '' for none."""

    rule: str
    next: str
    code: str = ""


@dataclass(frozen=True)
class Circumstances:
    """What may keep a credential from serving although its state allows it."""

    #: `rq suspend`.
    is_suspended: bool = False
    #: Whether an operator has paused its pool.
    is_paused: bool = False
    has_worker_process: bool = True
    #: Whether the circuit breaker of its pool, or of its token endpoint, is open.
    is_upstream_down: bool = False
    is_token_endpoint_down: bool = False


AFTER_COOLDOWN = "when the cooldown ends it takes requests again"
RETRIED = "its token request is repeated when the cooldown ends"
ENABLE = "nothing by itself: `./farm credentials enable` puts it back"
#: Reason, without the code behind it -> rule and what happens next. Reasons: workers/attempt/outcomes.py.
EXPLANATIONS = {
    "rate_limited": ("the upstream answered 429, with Retry-After or several times", AFTER_COOLDOWN),
    "allowance_used": ("the upstream's rate limit headers say that the account has nothing left", AFTER_COOLDOWN),
    "limit_reached": (
        "the account has used up a limit that its settings give it",
        "when a request fits again it takes one",
    ),
    "refused": ("the upstream refused requests that others were served, or several", AFTER_COOLDOWN),
    "out_of_credit": ("the upstream wants a payment first (402 or a code), and serves others", AFTER_COOLDOWN),
    "upstream_error": ("requests failed here that others were served, or several", AFTER_COOLDOWN),
    "unreachable": ("connections to the upstream failed here several times", AFTER_COOLDOWN),
    "timeout": ("the upstream did not answer in time here several times", AFTER_COOLDOWN),
    "cut": ("responses broke off here several times", AFTER_COOLDOWN),
    "no_answer": ("what the upstream sent here was no response several times", AFTER_COOLDOWN),
    "no_token": ("the token endpoint refused the request, not the credential", RETRIED),
    "token_endpoint_down": ("the token endpoint failed", RETRIED),
    "invalid_grant_retry": (
        "the token endpoint refused the credential",
        "it is presented again when the cooldown ends",
    ),
    "invalid_grant_last_retry": (
        "the token endpoint refused the credential several times",
        "it is presented a last time, by its superseded token if there is one; refused again, it is dead",
    ),
    "token_in_doubt": (
        "a refresh got no answer, so its token may have been rotated, and the endpoint refuses the former one since",
        "it is presented again when the cooldown ends; it is dead when the superseded token is refused as well",
    ),
    "invalid_grant": (
        "the token endpoint refused the credential at every try, while it was not failing for others",
        "nothing by itself: sign in again or import a new token; `./farm credentials enable` tries this one again",
    ),
    API_KEYS_REFUSED: (
        "the upstream answers this API key and others of the pool with 401, and accepts none",
        "when the cooldown ends a request tries it again; none of the pool's keys dies of it",
    ),
    "api_key_refused": ("the upstream answered the API key with 401", "the next request is its second try"),
    "by a person": ("an operator disabled it", ENABLE),
    "moved to another farm": (
        "`./farm export --move` has handed it over to another farm",
        "nothing: the other farm serves it, and enabled here as well it would have two owners",
    ),
    "being revoked": (
        "an operator is having its token revoked at the upstream",
        "it is disabled, or goes on as before",
    ),
    "revoked": ("an operator had its token revoked at the upstream", "nothing: its token is worthless; remove it"),
}
DEAD_KEY = Explanation("the upstream answered the API key with 401 twice in a row", f"{ENABLE}, for two more tries")
CAN_SERVE = Explanation("it can serve", "it takes the next request")
#: What keeps an active credential from serving, and what else goes before the reason of a state.
HINDRANCES = {
    "suspended": Explanation("it can serve, but `rq suspend` holds all workers", "it takes requests after `rq resume`"),
    "paused": Explanation(
        "it can serve, but an operator has paused its pool", "it takes requests when the pool is resumed"
    ),
    "no_process": Explanation("it can serve, but no worker process runs", "it takes requests once one does"),
    "upstream_down": Explanation(
        "it can serve, but the upstream fails for the whole pool",
        "now and then one credential tries a request; when one is served, all take requests again",
    ),
    "no_worker": Explanation(
        "it can serve, but no worker has it yet",
        "a worker process takes it within seconds, unless FARM_MAX_WORKERS are running",
    ),
    "draining": Explanation("an operator disabled it, and its last request still runs", ENABLE),
    "token_endpoint_down": Explanation(
        "its token endpoint fails for the whole pool, and its access token has expired",
        "now and then one credential asks for a token; when one gets it, all do",
    ),
    "token_request_failed": Explanation(
        "its token endpoint fails, and its access token has expired",
        "its token request is repeated, after pauses of up to 15 s",
    ),
}
FOREIGN_NEXT = "it comes back when its pool's settings do, or with `./farm credentials adopt`"


def explain_state(state: str, reason: str, evidence: Evidence = NO_EVIDENCE) -> Explanation:
    """The explanation of a state with its reason, as the store has them."""
    kind, _, code = reason.partition(": ")
    code = evidence.code or code
    if state == "active":
        return CAN_SERVE
    if state == "foreign":
        return Explanation("its token endpoint or kind is not its pool's", FOREIGN_NEXT)
    if state == "dead" and kind == "api_key_refused":
        return DEAD_KEY
    following = {"cooling": AFTER_COOLDOWN}.get(state, ENABLE)
    rule, following = EXPLANATIONS.get(kind, (reason or "no reason was recorded", following))
    return Explanation(rule, following, code if kind in EXPLANATIONS else "")


def explain_record(
    record: CredentialRecord, last_failure: LastFailure | None, circumstances: Circumstances, in_flight: int = 0
) -> Explanation:
    """The explanation of a credential's state; of an active one that serves nothing, why that is.

    `in_flight`: requests that it has now.
    """
    if record.state == "disabled" and in_flight:
        return HINDRANCES["draining"]
    if record.state != "active":
        return explain_state(record.state, record.reason, record.evidence)
    return explain_active(record, last_failure, circumstances)


def explain_active(
    record: CredentialRecord, last_failure: LastFailure | None, circumstances: Circumstances
) -> Explanation:
    if circumstances.is_suspended:
        return HINDRANCES["suspended"]
    if circumstances.is_paused:
        return HINDRANCES["paused"]
    if not circumstances.has_worker_process:
        return HINDRANCES["no_process"]
    if circumstances.is_upstream_down:
        return HINDRANCES["upstream_down"]
    if not record.owner:
        return HINDRANCES["no_worker"]
    if last_failure is not None and is_without_token(record, last_failure):
        hindrance = "token_endpoint_down" if circumstances.is_token_endpoint_down else "token_request_failed"
        return replace(HINDRANCES[hindrance], code=last_failure.evidence.code)
    return CAN_SERVE


def is_without_token(record: CredentialRecord, last_failure: LastFailure) -> bool:
    """Whether an active credential waits for its token endpoint."""
    is_token_failure = record.kind != "api_key" and last_failure.outcome == "token_endpoint_down"
    return is_token_failure and last_failure.at > max(record.refreshed_at, record.access_expires)
