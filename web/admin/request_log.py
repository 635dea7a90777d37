"""Admin API: the request log."""

from collections.abc import Iterator

from flask import Response

from shared.observability.names_by_id import name_columns, name_rows
from shared.observability.request_log import EXPORT_COLUMNS, LogFilter, RequestLog, StoredEntry
from web.admin.api import router
from web.admin.export import CSV_TYPE, JSONL_TYPE, export_rows
from web.admin.openapi import to_response
from web.admin.pagination import parse_stream_cursor
from web.admin.schemas.usage import LogPage, LogQuery
from web.services import services

#: Maximum entries in one export.
MAX_EXPORT_ROWS = 1_000_000


@router.route("GET", "/logs", query=LogQuery, response=LogPage, errors=(404,), media=(CSV_TYPE, JSONL_TYPE))
def logs(query: LogQuery) -> Response:
    """Search the request log, newest first; it contains no prompts or responses."""
    if query.format == "json":
        return to_response(read_log_page(query), 200)
    rows = (entry.to_dict() for entry, _ in zip(read_entries(query), range(MAX_EXPORT_ROWS), strict=False))
    return export_rows(name_rows(services().redis, rows), name_columns(EXPORT_COLUMNS), query.format)


def read_log_page(query: LogQuery) -> LogPage:
    cursor = parse_stream_cursor(query.cursor)
    page = RequestLog(services().redis).search(build_filter(query), query.limit, cursor)
    named = name_rows(services().redis, (entry.to_json() for entry in page.entries))
    return LogPage(data=list(named), next=page.next or None)


def read_entries(query: LogQuery) -> Iterator[StoredEntry]:
    """The entries that match, newest first."""
    log = RequestLog(services().redis)
    return log.read_newest_first(build_filter(query), parse_stream_cursor(query.cursor))


def build_filter(query: LogQuery) -> LogFilter:
    names = ("request", "key", "pool", "model", "credential", "endpoint", "code", "outcome")
    until = float("inf") if query.until is None else query.until
    return LogFilter(query.since or 0.0, until, **{name: getattr(query, name) for name in names})
