"""Notices, each of which tells once that an alert was raised or is over, and the messages made of them. No I/O."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from gettext import NullTranslations
from typing import Literal

from shared.decoding import parse_record

#: Lines of a message; characters of a line.
MAX_LINES, MAX_LINE_LENGTH = 25, 300
MINUTE, HOUR = 60, 3600
#: Gives the translation of a text.
Translate = Callable[[str], str]
ENGLISH = NullTranslations()


@dataclass(frozen=True)
class Alert:
    """What is wrong now. Times are seconds since the epoch."""

    #: One of ALERT_RULES, or of another version.
    rule: str
    pool: str
    #: Id of the account or API key that it is about, '' for the pool or the farm.
    subject: str
    #: What is wrong, and what it is that is over later, in English, with placeholders (`%(name)s`) for the values.
    text: str
    over: str
    since: float = 0.0
    #: Beside the rule, what tells alerts about the same subject apart.
    detail: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return ":".join((self.rule, self.pool, self.subject, self.detail))

    def describe(self, translate: Translate = str) -> str:
        """What is wrong."""
        return fill_in(translate(self.text), self.values)

    def describe_end(self, translate: Translate = str) -> str:
        """What it is that is over."""
        return fill_in(translate(self.over), self.values)

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
    #: As those of an alert.
    text: str
    #: When the alert was raised.
    since: float
    pool: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: Literal["raised", "over"], alert: Alert, now: float) -> "Notice":
        text = alert.text if kind == "raised" else alert.over
        return cls(kind, now, alert.id, text, alert.since, alert.pool, alert.values)

    def describe(self, translate: Translate) -> str:
        text = fill_in(translate(self.text), self.values)
        return f"{self.pool}: {text}" if self.pool else text

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


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """A text without values has no placeholders, and may have any `%`."""
    return text % values if values else text


def compose(notices: Sequence[Notice], farm: str, link: str, texts: NullTranslations = ENGLISH) -> Message:
    """One message of these notices, the oldest first, in the language of `texts`.

    `farm` names it in the title, `link` may be ''.
    """
    by_alert: dict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        by_alert[notice.alert_id].append(notice)
    open_count = sum(told[-1].kind == "raised" for told in by_alert.values())
    over_count = len(by_alert) - open_count
    lines = [describe(told, texts) for told in by_alert.values()]
    if len(lines) == 1:
        heading = notices[-1].describe(texts.gettext)
    else:
        raised = texts.ngettext("%(count)s alert raised", "%(count)s alerts raised", open_count)
        over = texts.gettext("%(count)s over")
        heading = ", ".join(
            text % {"count": count} for text, count in ((raised, open_count), (over, over_count)) if count
        )
    more = texts.gettext("and %(count)s more") % {"count": len(lines) - MAX_LINES}
    left_out = [more] if len(lines) > MAX_LINES else []
    body = "\n".join([*lines[:MAX_LINES], *left_out, *([link] if link else [])])
    return Message("failure" if open_count else "success", f"[{farm}] {clean(heading)}", body)


def describe(told: Sequence[Notice], texts: NullTranslations) -> str:
    """A line for what has become of one alert: its notices, the oldest first."""
    last, raised = told[-1], sum(notice.kind == "raised" for notice in told)
    what = last.describe(texts.gettext)
    if last.kind == "over":
        duration = format_duration(last.time - last.since, texts)
        what = texts.gettext("over after %(duration)s: %(what)s") % {"duration": duration, "what": what}
    times = texts.gettext("(%(count)s times)") % {"count": raised}
    return clean(f"{format_time(last.time)} {what}" + (f" {times}" if raised > 1 else ""))


def clean(text: str) -> str:
    """One line without control characters, bounded: labels and errors are text of others."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= MAX_LINE_LENGTH else f"{printable[: MAX_LINE_LENGTH - 1]}…"


def format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(seconds: float, texts: NullTranslations = ENGLISH) -> str:
    whole = max(0, round(seconds))
    minutes = texts.gettext("%(count)s min") % {"count": whole % HOUR // MINUTE}
    if whole < MINUTE:
        return texts.gettext("%(count)s s") % {"count": whole}
    return minutes if whole < HOUR else f"{texts.gettext('%(count)s h') % {'count': whole // HOUR}} {minutes}"
