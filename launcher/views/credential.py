"""Shows a credential: to people in sections, to programs a line a fact. No I/O."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from launcher.output import format_time
from launcher.views.times import format_age, format_moment
from shared.credentials.activity.activity import Activity, LastFailure, LastTest
from shared.credentials.activity.allowance import Allowance, Left
from shared.credentials.activity.description import CredentialDescription
from shared.credentials.evidence import Evidence
from shared.credentials.records import CredentialRecord, StateChange
from shared.pacing.account_limits import LIMIT_NAMES
from shared.pacing.limit_use import LimitUse

#: Columns of a label, and of a line at most.
LABEL_WIDTH, MAX_WIDTH = 14, 110
COLOURS = {"active": "green", "cooling": "yellow", "dead": "red", "foreign": "red", "disabled": "magenta"}
#: Fields of a record that are times.
TIME_FIELDS = frozenset({"until", "state_since", "in_doubt_since", "access_expires"})

Fact = tuple[str, str]


def list_facts(description: CredentialDescription, history: Iterable[StateChange]) -> Iterator[str]:
    """`name: value` lines, one a fact, times in UTC."""
    record, activity, explanation = description.record, description.activity, description.explanation
    for name, value in record.to_dict().items():
        if name == "resting_models" or (name in LIMIT_NAMES and value is None):
            continue
        if name == "evidence":
            yield f"evidence: {record.evidence.describe() or '-'}"
        elif name in TIME_FIELDS or name.endswith("_at"):
            yield f"{name}: {format_time(value)}"
        else:
            yield f"{name}: {value if value != '' else '-'}"
    for model, until in record.resting_models.items():
        yield f"limited for model {model} until {format_time(until)}"
    yield f"why: {explanation.rule}"
    yield f"next: {explanation.next}"
    yield f"last_used_at: {format_time(activity.used_at)}"
    yield f"in_flight: {activity.in_flight}"
    yield f"last_hour: {describe_last_hour(activity)}"
    yield f"last_failure: {describe_failure(activity.last_failure)}"
    yield f"left: {describe_allowance(activity.allowance)}"
    for limit in description.limits:
        yield f"limit: {describe_limit(limit)}"
    yield f"last_test: {describe_test(activity.last_test)}"
    for change in history:
        said = add_evidence(change.evidence)
        yield f"was: {format_time(change.time)} {change.state} {change.reason}".rstrip() + said


def render_page(description: CredentialDescription, history: Sequence[StateChange], now: float) -> str:
    """A page for a terminal."""
    record = description.record
    sections = [
        list_state(description, now),
        [*list_work(description.activity, now), *(("limit", describe_limit(use, now)) for use in description.limits)],
        list_tokens(record, now),
        [("history", line) for line in list_changes(history, now)],
    ]
    blocks = [render_title(record), *("\n".join(render_facts(facts)) for facts in sections if facts)]
    return "\n\n".join(blocks)


def render_title(record: CredentialRecord) -> str:
    state = click.style(record.state.upper(), fg=COLOURS.get(record.state), bold=True)
    named = [name for name in (record.account, record.label) if name]
    return "  ".join([click.style(record.id, bold=True), state, *named, f"pool {record.pool}"])


def list_state(description: CredentialDescription, now: float) -> list[Fact]:
    record, explanation = description.record, description.explanation
    facts = [("since", format_moment(record.state_since, now))]
    if record.state == "cooling":
        facts.append(("until", format_moment(record.until, now)))
    facts.append(("why", explanation.rule))
    if evidence := record.evidence.describe():
        facts.append(("evidence", evidence))
    if record.reason and record.state != "active":
        facts.append(("reason", record.reason))
    facts.append(("next", explanation.next))
    for model, until in record.resting_models.items():
        facts.append(("limited", f"for model {model} until {format_moment(until, now)}"))
    if record.in_doubt_since:
        facts.append(("in doubt", f"since {format_moment(record.in_doubt_since, now)}: a refresh got no answer"))
    return facts


def list_work(activity: Activity, now: float) -> list[Fact]:
    running = {0: "nothing", 1: "a request"}.get(activity.in_flight, f"{activity.in_flight} requests")
    facts = [
        ("running", running),
        ("last used", format_moment(activity.used_at, now)),
        ("last hour", describe_last_hour(activity)),
    ]
    if activity.last_failure:
        facts.append(("last failure", describe_failure(activity.last_failure, now)))
    facts.append(("left", describe_allowance(activity.allowance, now)))
    facts.append(("last test", describe_test(activity.last_test, now)))
    return facts


def list_tokens(record: CredentialRecord, now: float) -> list[Fact]:
    exported = format_moment(record.exported_at, now)
    if record.export_outdated:
        exported += ": outdated, the refresh token has rotated since"
    rotated = format_moment(record.rotated_at, now)
    if record.rotations:
        rotated += f", {record.rotations} times in all" if record.rotations > 1 else ", once"
    facts = [
        ("refreshed", format_moment(record.refreshed_at, now)),
        ("rotated", rotated),
        ("access token", f"until {format_moment(record.access_expires, now)}" if record.access_expires else "-"),
        ("exported", exported),
        ("added", format_moment(record.added_at, now)),
        ("endpoint", record.token_origin or "-"),
        ("worker", record.owner or "-"),
    ]
    if record.kind != "refresh_token":
        facts = [("kind", record.kind), *(fact for fact in facts if fact[0] not in ("rotated", "exported"))]
    if record.issuer:
        facts.append(("account", f"{record.subject} at {record.issuer}"))
    return facts


def list_changes(history: Sequence[StateChange], now: float) -> Iterator[str]:
    for change in history:
        said = add_evidence(change.evidence)
        state = click.style(f"{change.state:<8}", fg=COLOURS.get(change.state))
        yield f"{format_time(change.time)}  {format_age(change.time, now):>10}  {state}  {change.reason}{said}".rstrip()


def render_facts(facts: Iterable[Fact]) -> Iterator[str]:
    """Aligned lines; a label that repeats is shown once."""
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    shown = ""
    for label, text in facts:
        lead = "" if label == shown else label
        shown = label
        # Styled text holds escape sequences, which textwrap would count.
        lines = [text] if "\x1b" in text else textwrap.wrap(text, max(20, width - LABEL_WIDTH)) or [""]
        yield click.style(f"{lead:<{LABEL_WIDTH}}", dim=True) + lines[0]
        yield from (" " * LABEL_WIDTH + line for line in lines[1:])


def describe_last_hour(activity: Activity) -> str:
    recent = activity.last_hour
    if recent.success_rate is None:
        return "no attempts"
    first_byte = recent.first_byte_seconds
    timing = "" if first_byte is None else f", first byte {format_milliseconds(first_byte)} (median)"
    return f"{recent.served} served, {recent.failed} failed: {format_share(recent.success_rate)}{timing}"


def describe_failure(failure: LastFailure | None, now: float = 0) -> str:
    if failure is None:
        return "-"
    return f"{format_at(failure.at, now)} {failure.outcome}{add_evidence(failure.evidence)}"


def add_evidence(evidence: Evidence) -> str:
    """` (upstream 429 …)` behind what it stands for; '' without any."""
    said = evidence.describe()
    return f" ({said})" if said else ""


def describe_allowance(allowance: Allowance | None, now: float = 0) -> str:
    if allowance is None:
        return "the upstream does not say"
    limits = "; ".join(describe_left(left, now) for left in allowance.left)
    return f"{limits} (as of {format_age(allowance.at, now) if now else format_time(allowance.at)})"


def describe_left(left: Left, now: float = 0) -> str:
    of = "" if left.limit is None else f" of {left.limit:,.0f}"
    reset = f", reset {format_at(left.reset_at, now)}" if left.reset_at else ""
    return f"{left.remaining:,.0f}{of} {left.name}{reset}"


def describe_limit(use: LimitUse, now: float = 0) -> str:
    """A limit that the farm keeps to, with what is left of it."""
    owned = ", the account's own" if use.is_own else ""
    fits = f", a request fits {format_at(use.next_at, now)}" if use.next_at else ""
    if use.remaining is None:
        return f"{use.name} {use.limit:g} s{owned}{fits}"
    reset = f", all free {format_at(use.reset_at, now)}" if use.reset_at else ""
    return f"{use.name} {use.remaining:,.0f} left of {use.limit:,.0f}{owned}{fits}{reset}"


def describe_test(test: LastTest | None, now: float = 0) -> str:
    if test is None:
        return "never"
    if not test.ok:
        said = " ".join(filter(None, [f"HTTP {test.status}" if test.status else "", test.code])) or "no code"
        return f"{format_at(test.at, now)} failed: {said}"
    return f"{format_at(test.at, now)} ok: refresh {test.refresh_ms} ms, first byte {test.first_byte_ms} ms"


def format_at(at: float, now: float) -> str:
    """Without `now` only the moment, which programs can read."""
    return format_moment(at, now) if now else format_time(at)


def format_share(share: float) -> str:
    """Per cent; never 100 unless it is all."""
    return f"{int(1000 * share) / 10:g} %"


def format_milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"
