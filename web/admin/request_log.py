"""The request log in the admin API."""

from flask import Response

from shared.observability.request_log import EXPORT_COLUMNS, LogFilter, RequestLog
from web.admin.api import router
from web.admin.export import CSV, JSONL, export_rows
from web.admin.openapi import to_response
from web.admin.pagination import parse_stream_cursor, take_page
from web.admin.schemas import (
    LogPage,
    LogQuery,
)
from web.services import services

#: Most entries of the request log in one export.
MAX_EXPORT_ROWS = 1_000_000


@router.route("GET", "/logs", query=LogQuery, response=LogPage, errors=(404,), media=(CSV, JSONL))
def logs(query: LogQuery) -> Response:
    """The request log, newest first: no prompt, no answer."""
    names = ("request", "key", "pool", "model", "credential", "endpoint", "code", "outcome")
    until = float("inf") if query.until is None else query.until
    wanted = LogFilter(query.since or 0.0, until, **{name: getattr(query, name) for name in names})
    found = RequestLog(services().redis).read_newest_first(wanted, parse_stream_cursor(query.cursor))
    if query.format != "json":
        rows = (one.to_dict() for one, _ in zip(found, range(MAX_EXPORT_ROWS), strict=False))
        return export_rows(rows, EXPORT_COLUMNS, query.format)
    taken, more = take_page(found, query.limit)
    return to_response(LogPage(data=[one.to_dict() for one in taken], next=taken[-1].id if more else None), 200)
