"""Searches of the request log by pages of the console, which look at its newest entries only."""

from dataclasses import dataclass
from typing import Any

from shared.observability.names_by_id import name_rows
from shared.observability.request_log import MAX_SCANNED, LogFilter, RequestLog
from web.services import services

#: Entries that a page looks at which shows the last requests of an account or key beside other things.
SCANNED_BESIDE = 2_000


@dataclass(frozen=True)
class FoundRows:
    """Entries that match, newest first, with names beside their ids."""

    data: list[dict[str, Any]]
    #: Where the search goes on, '' at the end of the log.
    next: str = ""
    #: Whether the search has stopped after as many entries as one page looks at.
    is_cut: bool = False


def search(log_filter: LogFilter, limit: int, cursor: str = "", scanned: int = MAX_SCANNED) -> FoundRows:
    """Up to `limit` entries older than the one with the id `cursor`."""
    redis = services().redis
    found = RequestLog(redis).search(log_filter, limit, cursor, scanned)
    rows = name_rows(redis, (entry.to_dict() for entry in found.entries))
    return FoundRows(list(rows), found.next, found.is_cut)


def find_last(log_filter: LogFilter, limit: int) -> list[dict[str, Any]]:
    """The last requests of an account or key, among the newest of the log."""
    return search(log_filter, limit, scanned=SCANNED_BESIDE).data
