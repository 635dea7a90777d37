"""How pages show numbers, times and durations, in the reader's language."""

from datetime import UTC, datetime

from shared import clock
from web.languages.translation import gettext, ngettext

MINUTE, HOUR, DAY = 60, 3600, 86_400


def number(value: float) -> str:
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """A number of things per time, with a decimal if they are few."""
    return number(value) if value >= 10 else f"{value:.1f}".removesuffix(".0")


def percent(part: float, whole: float = 1.0) -> str:
    """A share; '' of nothing, because no data is not 0 %."""
    return f"{100 * part / whole:.0f} %" if whole else ""


def size(count: float) -> str:
    """Bytes in a unit that people read: `340 KB`, `2.1 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def iso_time(seconds: float) -> str:
    """For `<time datetime>`, which the browser shows in its own time zone (ISO 8601, UTC)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def from_now(seconds: float) -> float:
    """The time in so many seconds, in seconds since the epoch."""
    return clock.now() + seconds


def utc_clock(seconds: float) -> str:
    """The time of the day."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M UTC")


def duration(seconds: float) -> str:
    """A duration in its largest unit, rounded down: `3 min`."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return gettext("%(count)s s") % {"count": whole}
    if whole < HOUR:
        return gettext("%(count)s min") % {"count": whole // MINUTE}
    if whole < DAY:
        return gettext("%(count)s h") % {"count": whole // HOUR}
    days = whole // DAY
    return ngettext("%(count)s day", "%(count)s days", days) % {"count": days}


def ago(seconds: float) -> str:
    """How long ago a time was, '' for 0, which stands for never."""
    return gettext("%(duration)s ago") % {"duration": duration(clock.now() - seconds)} if seconds else ""


def remaining(seconds: float) -> str:
    """How long it is until a time; '' if it is over."""
    left = seconds - clock.now()
    return gettext("in %(duration)s") % {"duration": duration(left)} if left > 0 else ""


def milliseconds(value: float) -> str:
    """Milliseconds in a unit that people read: `340 ms`, `2.1 s`."""
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
