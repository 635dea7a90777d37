"""Searches the request log a bounded part at a time, because a log of 100,000 entries would keep a front busy."""

from dataclasses import dataclass, replace
from typing import Any

from shared.observability.names_by_id import name_rows
from shared.observability.request_log import LogFilter, RequestLog, StoredEntry
from web.services import services

#: Entries that one page looks at, and one that shows the last requests of an account or key beside other things.
SCANNED, SCANNED_BESIDE = 5_000, 1_000


@dataclass(frozen=True)
class FoundEntries:
    """Entries that match, newest first, with names beside their ids."""

    data: list[dict[str, Any]]
    #: Where the search goes on, '' at the end of the log.
    next: str = ""
    #: Whether the search has stopped after as many entries as one page looks at.
    is_cut: bool = False


def search(log_filter: LogFilter, limit: int, cursor: str = "", scanned: int = SCANNED) -> FoundEntries:
    """Up to `limit` entries older than the one with the id `cursor`."""
    found: list[StoredEntry] = []
    in_time = replace(LogFilter(), since=log_filter.since, until=log_filter.until)
    number, last = 0, ""
    for number, entry in enumerate(RequestLog(services().redis).read_newest_first(in_time, cursor), start=1):
        if len(found) == limit or number > scanned:
            break
        last = entry.id
        if log_filter.matches(entry.entry):
            found.append(entry)
    else:
        last = ""
    rows = name_rows(services().redis, (entry.to_dict() for entry in found))
    return FoundEntries(list(rows), last, is_cut=bool(last) and len(found) < limit)


def find_last(log_filter: LogFilter, limit: int) -> list[dict[str, Any]]:
    """The last requests of an account or key, among the newest of the log."""
    return search(log_filter, limit, scanned=SCANNED_BESIDE).data
