"""The console's words for states, outcomes and codes; tests hold that each one has its word in each language."""

from shared.batches.hindrances import HINDRANCES
from shared.languages.catalogues import mark
from web.languages.translation import gettext, ngettext

#: State of a credential -> word.
CREDENTIAL_STATES = {
    "active": mark("active"),
    "cooling": mark("cooling"),
    "disabled": mark("disabled"),
    "dead": mark("dead"),
    "foreign": mark("foreign"),
}
#: State of an API key -> word.
KEY_STATES = {
    "enabled": mark("enabled"),
    "disabled": mark("disabled"),
    "expired": mark("expired"),
    "revoked": mark("revoked"),
}
#: Kind of a credential (FARM_CREDENTIAL_KIND) -> words.
CREDENTIAL_KINDS = {
    "refresh_token": mark("refresh token"),
    "api_key": mark("API key"),
    "client_credentials": mark("client credentials"),
    "service_account": mark("service account"),
}
#: Limit of an account (shared/pacing/account_limits.py) -> words.
ACCOUNT_LIMITS = {
    "account_rpm": mark("Requests left this minute"),
    "account_tpm": mark("Tokens left this minute"),
    "account_rpd": mark("Requests left in 24 hours"),
    "account_gap": mark("Seconds between two requests"),
}
#: What an account's worker does (shared/observability/tape.py) -> words.
WORK = {
    "busy": mark("busy"),
    "idle": mark("idle, nobody waits"),
    "idle_waiting": mark("idle while somebody waits"),
    "resting": mark("cooling"),
    "refreshing": mark("refreshing its token"),
    "upstream_down": mark("upstream down"),
    "suspended": mark("paused"),
    "draining": mark("ending its work"),
    "no worker": mark("no worker"),
}
#: Limit of an API key -> words.
KEY_LIMITS = {
    "concurrency": mark("Requests at once"),
    "rpm": mark("Requests in the last minute"),
    "tpm": mark("Tokens in the last minute"),
    "quota_tokens": mark("Quota of tokens"),
    "quota_requests": mark("Quota of requests"),
}
#: State of a batch -> word, and the state of an account whose colour it has.
BATCH_STATES = {
    "created": mark("created"),
    "validating": mark("being validated"),
    "in_progress": mark("in progress"),
    "finalizing": mark("being finished"),
    "completed": mark("completed"),
    "failed": mark("failed"),
    "expired": mark("expired"),
    "cancelling": mark("being cancelled"),
    "cancelled": mark("cancelled"),
}
BATCH_COLOURS = {"completed": "active", "failed": "dead", "expired": "cooling", "cancelled": "disabled"}
#: What a file is for (shared/files/file_record.py) -> words.
FILE_PURPOSES = {"batch": mark("input"), "batch_output": mark("output")}
#: Why a batch was cancelled, if its caller did not ask for that -> words.
BATCH_REASONS = {
    "key_revoked": mark("its key was revoked"),
    "credential_gone": mark("its caller's account was removed, or its token is refused"),
    "operator": mark("by an operator"),
}
#: What keeps the requests of a batch from being run -> words.
BATCH_HINDRANCES = HINDRANCES
BANDS = {"interactive": mark("interactive"), "batch": mark("batch")}
RESETS = {"never": mark("never"), "daily": mark("daily"), "weekly": mark("weekly"), "monthly": mark("monthly")}
ROLES = {"admin": mark("administrator"), "viewer": mark("viewer")}
IMPORT_OUTCOMES = {
    "added": mark("new"),
    "replaced": mark("new secret"),
    "duplicate": mark("known already"),
    "blank": mark("blank"),
    "invalid": mark("not valid"),
}
#: Operation on many accounts -> heading.
BULK_ACTIONS = {
    "test": mark("Test accounts"),
    "refresh": mark("Refresh tokens"),
    "enable": mark("Enable accounts"),
    "disable": mark("Disable accounts"),
    "drain": mark("Drain accounts"),
    "relabel": mark("Label accounts"),
    "remove": mark("Remove accounts"),
}
BULK_STATES = {
    "running": mark("running"),
    "done": mark("done"),
    "cancelled": mark("cancelled"),
    "interrupted": mark("interrupted"),
}
#: Outcomes of such an operation (web/admin/bulk) that are the farm's own words.
BULK_OUTCOMES = {
    "ok": mark("went well"),
    "there is no such credential any more": mark("gone"),
    "its request still runs": mark("disabled, its request still runs"),
    "no worker process is running": mark("no worker process runs"),
    "other errors": mark("other errors"),
}
SIGN_IN_STATES = {
    "pending": mark("waiting for the owner"),
    "done": mark("signed in"),
    "failed": mark("failed"),
    "expired": mark("expired"),
}
#: State of durability (shared/observability/durability.py) -> sentence.
DURABILITY = {
    "confirmed": mark("Redis confirms that rotated refresh tokens are on disk before they are used."),
    "unconfirmed": mark("This Redis writes rotated refresh tokens to disk within a second, without confirming it."),
    "unknown": mark("No worker process has reported yet."),
    "slow": mark("The disk of Redis is too slow to confirm rotated refresh tokens in time."),
    "replicas": mark("Fewer replicas than FARM_WAIT_REPLICAS take over rotated refresh tokens in time."),
    "write_error": mark("Redis can't write its append-only file: is its disk full?"),
    "no_aof": mark("Redis has no append-only file: a crash loses rotated refresh tokens (appendonly yes)."),
}
#: State of the store of files (shared/files/store_health.py) -> sentence.
FILE_STORE = {
    "ok": mark("Files can be stored."),
    "full": mark("The store of files is full: uploads are refused, and batches wait with their results."),
    "away": mark("The store of files can't be used: uploads are refused, and batches wait with their results."),
}
#: Period of a past load (shared/queue_view/plan.py) -> words.
PERIODS = {
    "busiest-hour": mark("the busiest hour of the last 24 hours"),
    "busiest-hour-of-week": mark("the busiest hour of the last 7 days"),
    "hour": mark("the last hour"),
    "day": mark("the last 24 hours"),
}
#: Step of a request (web/console/requests/waterfall.py) -> words.
STEPS = {
    "queue": mark("waited in the queue"),
    "wait": mark("waited for another account"),
    "failed": mark("attempt failed"),
    "first": mark("until the first byte"),
    "reply": mark("rest of the reply"),
}
#: HTTP status of an error page -> heading.
ERROR_TITLES = {
    400: mark("This request is not valid"),
    403: mark("Not permitted"),
    404: mark("There is no such page"),
    405: mark("Not permitted"),
    409: mark("This is not possible now"),
    413: mark("This is too large"),
    422: mark("A value is not valid"),
    429: mark("Too many requests"),
    503: mark("The farm can't do this now"),
}
#: What to do about an error on a page, by its code.
ERROR_ADVICE = {
    "forbidden": mark("You are logged in as a viewer, who may read everything and change nothing."),
    "cross_origin": mark("The request did not come from a page of this console. Open the page again and retry."),
    "not_found": mark("It may have been removed since the list was shown."),
    "no_worker": mark("No worker process runs or has taken this up. Look at System, or start the workers."),
    "not_ready": mark("The workers have not prepared the store yet. Try again in a moment."),
    "conflict": mark("The state of the object does not permit this."),
    "store_unavailable": mark("Redis does not respond. The farm goes on when it is back."),
}


def notices(count: int) -> dict[str, str]:
    """What has been done -> sentence."""
    return {
        "label": gettext("The label was saved."),
        "limits": gettext("The limits were saved. They are in force from its next request."),
        "enabled": ngettext("One account was enabled.", "%(count)s accounts were enabled.", count),
        "disabled": ngettext("One account was disabled.", "%(count)s accounts were disabled.", count),
        "relabelled": ngettext("One account was labelled.", "%(count)s accounts were labelled.", count),
        "removed": ngettext("One account was removed.", "%(count)s accounts were removed.", count),
        "adopted": gettext("The account now belongs to its pool's token endpoint."),
        "refreshed": gettext("The access token was refreshed."),
        "key_saved": gettext("The key was saved. It takes effect within two seconds."),
        "former_ended": gettext("Only the present secret opens the key now."),
        "key_revoked": gettext("The key was revoked."),
        "session_ended": gettext("The session was ended."),
        "token_revoked": gettext("The admin token was revoked, and its sessions were ended."),
        "sign_in_cancelled": gettext("The sign-in was cancelled."),
        "request_cancelled": gettext("The request was cancelled."),
        "batch_cancelled": gettext("The batch is being cancelled; what is done is kept."),
        "batch_removed": gettext("The record of the batch was removed; its files stay."),
        "file_deleted": gettext("The file was deleted."),
        "pool_paused": gettext("The pool is paused: its requests wait until it is resumed."),
        "pool_resumed": gettext("The pool was resumed; its workers go on within a second."),
        "nothing": gettext("Nothing was selected."),
    }


def describe_notice(done: str, count: int) -> str:
    return notices(count).get(done, "") % {"count": count}


def translate(table: dict[str, str], word: str) -> str:
    """The word of a table in the reader's language; one that the table lacks stays as it is."""
    return gettext(table[word]) if word in table else word
