"""Times as people read them: the moment, and how far it is from now. No I/O."""

from launcher.output import format_time

#: Seconds of each unit, the longest first.
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_distance(seconds: float) -> str:
    """One unit, rounded down: `3 min`; `0 s` for less than a second."""
    seconds = abs(seconds)
    length, unit = next(((length, unit) for length, unit in UNITS if seconds >= length), UNITS[-1])
    return f"{int(seconds // length)} {unit}"


def format_age(at: float, now: float) -> str:
    """`3 min ago`, `in 2 h`; `-` for never."""
    if not at:
        return "-"
    return f"in {format_distance(at - now)}" if at > now else f"{format_distance(now - at)} ago"


def format_moment(at: float, now: float) -> str:
    """`2026-11-28 09:12:31Z (3 min ago)`; `-` for never."""
    return f"{format_time(at)} ({format_age(at, now)})" if at else "-"
