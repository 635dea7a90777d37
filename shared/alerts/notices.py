"""Notices, each of which tells once that an alert was raised or is over, and the messages made of them. No I/O."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from shared.decoding import parse_record

#: Lines of a message; characters of a line.
MAX_LINES, MAX_LINE_LENGTH = 25, 300
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Alert:
    """What is wrong now. Times are seconds since the epoch."""

    #: One of ALERT_RULES, or of another version.
    rule: str
    pool: str
    #: Id of the account or API key that it is about, '' for the pool or the farm.
    subject: str
    #: What is wrong, and what it is that is over later.
    text: str
    over: str
    since: float = 0.0
    #: Beside the rule, what tells alerts about the same subject apart.
    detail: str = ""

    @property
    def id(self) -> str:
        return ":".join((self.rule, self.pool, self.subject, self.detail))

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "Alert":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)


@dataclass(frozen=True)
class Notice:
    """An alert was raised, or is over."""

    kind: str
    time: float
    alert_id: str
    text: str
    #: When the alert was raised.
    since: float

    @classmethod
    def of(cls, kind: Literal["raised", "over"], alert: Alert, now: float) -> "Notice":
        text = alert.text if kind == "raised" else alert.over
        return cls(kind, now, alert.id, f"{alert.pool}: {text}" if alert.pool else text, alert.since)

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "Notice":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)


@dataclass(frozen=True)
class Message:
    """What a receiver gets."""

    #: `failure`, `success` or `info`, as apprise calls them.
    kind: str
    title: str
    body: str


def compose(notices: Sequence[Notice], farm: str, link: str) -> Message:
    """One message of these notices, the oldest first; `farm` names it in the title, `link` may be ''."""
    by_alert: dict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        by_alert[notice.alert_id].append(notice)
    open_count = sum(told[-1].kind == "raised" for told in by_alert.values())
    over_count = len(by_alert) - open_count
    lines = [describe(told) for told in by_alert.values()]
    if len(lines) == 1:
        heading = notices[-1].text
    else:
        heading = ", ".join(
            f"{count} {what}" for count, what in ((open_count, "alerts raised"), (over_count, "over")) if count
        )
    left_out = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    body = "\n".join([*lines[:MAX_LINES], *left_out, *([link] if link else [])])
    return Message("failure" if open_count else "success", f"[{farm}] {clean(heading)}", body)


def describe(told: Sequence[Notice]) -> str:
    """A line for what has become of one alert: its notices, the oldest first."""
    last, raised = told[-1], sum(notice.kind == "raised" for notice in told)
    times = f" ({raised} times)" if raised > 1 else ""
    if last.kind == "raised":
        return clean(f"{format_time(last.time)} {last.text}{times}")
    return clean(f"{format_time(last.time)} over after {format_duration(last.time - last.since)}: {last.text}{times}")


def clean(text: str) -> str:
    """One line without control characters, bounded: labels and errors are text of others."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= MAX_LINE_LENGTH else f"{printable[: MAX_LINE_LENGTH - 1]}…"


def format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    return f"{whole // MINUTE} min" if whole < HOUR else f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
