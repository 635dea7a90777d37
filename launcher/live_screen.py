"""Renders the live view of `./farm top`: queue, running requests and tape, as lines of text. No I/O."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.observability.tape import ABSENT, Tape
from shared.queue_view.live_requests import RunningRequest, WaitingRequest
from shared.queue_view.pool_queue import PoolQueue

#: Columns of a name; lines of a section that is cut short, its heading included, at least.
NAME_WIDTH, MIN_SECTION_LINES = 16, 4


@dataclass(frozen=True)
class Account:
    """A credential and where it stands."""

    id: str
    name: str
    pool: str
    state: str


@dataclass(frozen=True)
class LiveView:
    """What is shown."""

    #: Seconds since the epoch.
    at: float
    queues: Sequence[PoolQueue]
    running: Sequence[RunningRequest]
    accounts: Sequence[Account]
    tape: Tape


def render(view: LiveView, width: int, height: int = 0) -> list[str]:
    """Lines of at most `width` characters, and of these `height` at most; 0 for all."""
    head = [time.strftime("%H:%M:%SZ", time.gmtime(view.at)), *map(describe_queue, view.queues)]
    sections = [
        list_waiting([request for queue in view.queues for request in queue.waiting], view.at),
        list_running(view.running, view.at),
        list_accounts(view.accounts, view.tape, width),
    ]
    if height:
        sections = fit(sections, height - len(head))
    lines = [*head, *(line for section in sections if section for line in ("", *section))]
    return [line[:width].rstrip() for line in (lines[:height] if height else lines)]


def fit(sections: Sequence[list[str]], height: int) -> list[list[str]]:
    """Cuts sections to the room that there is; what one does not need goes to the next ones."""
    fitted: list[list[str]] = []
    for number, section in enumerate(sections):
        share = max(
            MIN_SECTION_LINES, (height - sum(len(each) + 1 for each in fitted if each)) // (len(sections) - number) - 1
        )
        hidden = len(section) - share
        fitted.append([*section[: share - 1], f"… {hidden + 1} more"] if hidden > 0 else section)
    return fitted


def describe_queue(queue: PoolQueue) -> str:
    """A pool in one line."""
    status = queue.status
    waits = [
        f"{count} {band} waiting" + (f" (oldest {format_seconds(queue.oldest[band])})" if count else "")
        for band, count in status.queue_depth.items()
    ]
    parts = [
        ", ".join(f"{count} {state}" for state, count in status.workers.items()),
        f"utilisation {status.utilisation:.0%}",
        *waits,
        f"{sum(status.held.values())} held",
        f"{format_seconds(queue.mean_seconds)} each",
        *describe_clock(queue),
        *status.warnings,
    ]
    return f"pool {status.name}: {'; '.join(parts)}"


def describe_clock(queue: PoolQueue) -> list[str]:
    """When the queue is empty, with some more accounts too, and full."""
    drain, parts = queue.clock, [f"empty in {format_seconds(queue.drained_in)}"]
    if queue.drained_in and drain.empty_in_with_more is not None:
        parts[0] += f" ({format_seconds(drain.empty_in_with_more)} with {drain.more_accounts} more accounts)"
    return parts if drain.full_in is None else [*parts, f"full in {format_seconds(drain.full_in)}"]


def list_waiting(waiting: Sequence[WaitingRequest], now: float) -> list[str]:
    """The waiting requests in the order of service, with their turn and when that is."""
    rows = [
        (
            *(
                request.position,
                format_seconds(request.eta),
                format_seconds(now - request.admitted_at),
                request.request,
            ),
            *(show_name(request.key, request.key_name), request.model, request.pool, request.band),
            f"retry after {request.failed_attempts}" if request.state == "retry" else "",
        )
        for request in waiting
    ]
    return align(("TURN", "IN", "WAITED", "REQUEST", "KEY", "MODEL", "POOL", "BAND", ""), rows)


def list_running(running: Sequence[RunningRequest], now: float) -> list[str]:
    """The running requests, the oldest first."""
    rows = [
        (
            *(format_seconds(now - request.started_at), request.request, show_name(request.key, request.key_name)),
            *(request.model, show_name(request.credential, request.credential_name), request.pool),
            "answering" if request.has_begun else "waits for its first byte",
        )
        for request in running
    ]
    return align(("AGE", "RUNNING", "KEY", "MODEL", "CREDENTIAL", "POOL", ""), rows)


def list_accounts(accounts: Sequence[Account], tape: Tape, width: int) -> list[str]:
    """Each credential with what its worker did in the last seconds, as far as they fit into the line."""
    rows = [(show_name(each.id, each.name), each.pool, each.state) for each in accounts]
    lines = align(("CREDENTIAL", "POOL", "STATE"), rows)
    if not lines:
        return []
    start = max(map(len, lines)) + 2
    seconds = max(1, min(tape.seconds, width - start))
    absent = tape.seconds * ABSENT
    letters = [f"LAST {seconds} s", *(tape.letters.get(each.id, absent)[-seconds:] for each in accounts)]
    return [f"{line.ljust(start)}{row}" for line, row in zip(lines, letters, strict=True)]


def align(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table; no lines at all without rows."""
    cells = [headings, *([clean(str(cell)) for cell in row] for row in rows)]
    if len(cells) == 1:
        return []
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def show_name(id_: str, name: str) -> str:
    """A name, cut to NAME_WIDTH, before its id."""
    return f"{name[:NAME_WIDTH]} {id_}".strip() or "-"


def clean(text: str) -> str:
    """Names come from callers and operators: nothing that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def format_seconds(seconds: float | None) -> str:
    """`1.2s`, `3m05s`, `2h04m`; `?` for what is not known."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{max(0.0, seconds):.1f}s"
    minutes = round(seconds) // 60
    return f"{minutes}m{round(seconds) % 60:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
