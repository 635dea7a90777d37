"""The console's words for events, how bad each is, and sentences for several of a kind at once."""

from collections.abc import Callable

from shared.languages.catalogues import mark
from web.console.parts import formats
from web.languages.translation import gettext, ngettext

#: Kind of an event (shared/observability/event_log.py) -> words.
EVENT_KINDS = {
    "credential_active": mark("Account back in service"),
    "credential_cooling": mark("Account cooling"),
    "credential_disabled": mark("Account disabled"),
    "credential_dead": mark("Account dead"),
    "credential_foreign": mark("Accounts of another token endpoint"),
    "token_in_doubt": mark("Rotation in doubt"),
    "signed_in": mark("Account signed in"),
    "breaker_opened": mark("Upstream down: breaker opened"),
    "breaker_probed": mark("Upstream tried again, still down"),
    "breaker_closed": mark("Upstream back: breaker closed"),
    "token_breaker_opened": mark("Token endpoint down"),
    "token_breaker_closed": mark("Token endpoint back"),
    "collision": mark("Two requests met on one account"),
    "lease_lost": mark("Lease of an account lost"),
    "process_started": mark("Worker process started"),
    "process_stopped": mark("Worker process ended"),
    "process_buried": mark("Worker process died"),
    "refresher_down": mark("Token refresher down"),
    "refresher_back": mark("Token refresher back"),
    "front_lost": mark("Front died"),
    "orphan_found": mark("Request whose worker died"),
    "redis_failover": mark("Another Redis server is the primary"),
    "registered_again": mark("Redis lost data"),
    "batch_completed": mark("Batch completed"),
    "batch_failed": mark("Batch failed"),
    "batch_expired": mark("Batch expired"),
    "batch_cancelled": mark("Batch cancelled"),
    "alert_raised": mark("Alert raised"),
    "alert_over": mark("Alert over"),
    "alert_undelivered": mark("Receiver of alerts can't be told"),
    "alert_receiver_back": mark("Receiver of alerts told again"),
    "operator": mark("Operator"),
}
#: Kind -> the state whose colour it has; the others have none.
EVENT_COLOURS = (
    dict.fromkeys(("credential_active", "breaker_closed", "token_breaker_closed", "refresher_back"), "active")
    | dict.fromkeys(("alert_over", "alert_receiver_back", "signed_in", "process_started"), "active")
    | {"batch_completed": "active", "batch_expired": "cooling", "batch_failed": "dead"}
    | dict.fromkeys(("credential_cooling", "credential_foreign", "token_in_doubt", "breaker_probed"), "cooling")
    | dict.fromkeys(("lease_lost", "redis_failover", "orphan_found"), "cooling")
    | dict.fromkeys(("credential_dead", "breaker_opened", "token_breaker_opened", "collision"), "dead")
    | dict.fromkeys(("process_buried", "refresher_down", "front_lost", "registered_again"), "dead")
    | dict.fromkeys(("alert_raised", "alert_undelivered"), "dead")
)
#: Reaches of the time line that a reader may choose -> seconds, and words.
REACHES = {
    "1h": (3600, mark("the last hour")),
    "24h": (86_400, mark("the last 24 hours")),
    "7d": (7 * 86_400, mark("the last 7 days")),
}


def name_group(kind: str, count: int) -> str:
    """How many of a kind, in words."""
    phrases: dict[str, Callable[[], str]] = {
        "credential_active": lambda: ngettext("One account came back", "%(count)s accounts came back", count),
        "credential_cooling": lambda: ngettext("One account cooled", "%(count)s accounts cooled", count),
        "credential_disabled": lambda: ngettext("One account was disabled", "%(count)s accounts were disabled", count),
        "credential_dead": lambda: ngettext("One account died", "%(count)s accounts died", count),
    }
    if kind in phrases:
        return phrases[kind]() % {"count": count}
    words = gettext(EVENT_KINDS[kind]) if kind in EVENT_KINDS else kind
    if count == 1:
        return words
    return gettext("%(what)s, %(count)s times") % {"what": words, "count": count}


def describe_group(kind: str, count: int, seconds: float) -> str:
    """What a row for several events says: `14 accounts cooled within 3 s`."""
    values = {"what": name_group(kind, count), "duration": formats.duration(max(1, round(seconds)))}
    return gettext("%(what)s within %(duration)s") % values
