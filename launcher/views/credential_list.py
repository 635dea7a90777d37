"""The table of credentials. No I/O."""

from collections.abc import Sequence
from typing import Any

from launcher.output import format_time
from launcher.views.credential import format_share
from launcher.views.times import format_age
from shared.credentials.activity.activity import Activity
from shared.credentials.activity.description import CredentialDescription
from shared.credentials.records import CredentialRecord, mask_account

HEADINGS = (
    *("ID", "POOL", "STATE", "LABEL", "REASON", "SAID", "UNTIL", "BUSY", "USED", "SERVED", "FIRST MS", "LEFT"),
    *("LIMITED FOR", "REFRESHED", "ROTATIONS", "OWNER"),
)


def build_row(description: CredentialDescription, now: float, *, is_short: bool) -> tuple[Any, ...]:
    """The cells of a credential; `is_short`: with distances of times from now, as people read them."""

    def show(at: float) -> str:
        return format_age(at, now) if is_short else format_time(at)

    record, activity = description.record, description.activity
    recent = activity.last_hour
    return (
        record.id,
        record.pool,
        record.state,
        record.label or mask_account(record.account) or "-",
        record.reason or "-",
        describe_evidence(record),
        show(record.until) if record.state == "cooling" else "-",
        activity.in_flight or "-",
        show(activity.used_at),
        "-" if recent.success_rate is None else format_share(recent.success_rate).replace(" ", ""),
        "-" if recent.first_byte_seconds is None else round(1000 * recent.first_byte_seconds),
        describe_left(activity, now),
        " ".join(record.resting_models) or "-",
        show(record.refreshed_at),
        record.rotations,
        record.owner or "-",
    )


def describe_evidence(record: CredentialRecord) -> str:
    """Status and code of the response behind the state."""
    evidence = record.evidence
    is_said = evidence.code or evidence.status >= 300
    return " ".join(filter(None, [str(evidence.status or ""), evidence.code])) if is_said else "-"


def describe_left(activity: Activity, now: float) -> str:
    """What is left of the limit of which least is left, by its share; those that have been reset since say nothing."""
    named = activity.allowance.left if activity.allowance else ()
    limits = [left for left in named if not left.reset_at or left.reset_at > now]
    if not limits:
        return "-"
    least = min(limits, key=lambda left: left.remaining / left.limit if left.limit else float(left.remaining > 0))
    return f"{least.remaining:g}" + (f"/{least.limit:g}" if least.limit is not None else "") + f" {least.name}"


def drop_empty_columns(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Sequence[str], list[Any]]:
    """Leaves out the columns in which no row has anything, and the pool if there is one only, for narrow terminals."""
    values = {heading: {row[i] for row in rows} for i, heading in enumerate(headings)}
    kept = [
        i
        for i, heading in enumerate(headings)
        if not rows or (values[heading] != {"-"} and (heading != "POOL" or len(values[heading]) > 1))
    ]
    return tuple(headings[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]
