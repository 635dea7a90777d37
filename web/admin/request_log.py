"""The request log in the admin API."""

from flask import Response

from shared.observability.request_log import COLUMNS, Filter, RequestLog
from web.admin.api import contract
from web.admin.export import CSV, JSONL, exported
from web.admin.openapi import answered
from web.admin.pagination import entry_id, stream_page
from web.admin.schemas import (
    LogPage,
    LogQuery,
)
from web.services import parts

#: Most entries of the request log in one export.
MOST_EXPORTED = 1_000_000


@contract.route("GET", "/logs", query=LogQuery, answer=LogPage, errors=(404,), media=(CSV, JSONL))
def logs(query: LogQuery) -> Response:
    """The request log, newest first: no prompt, no answer."""
    names = ("request", "key", "pool", "model", "credential", "endpoint", "code", "outcome")
    until = float("inf") if query.until is None else query.until
    wanted = Filter(query.since or 0.0, until, **{name: getattr(query, name) for name in names})
    found = RequestLog(parts().redis).newest_first(wanted, entry_id(query.cursor))
    if query.format != "json":
        rows = (one.as_dict() for one, _ in zip(found, range(MOST_EXPORTED), strict=False))
        return exported(rows, COLUMNS, query.format)
    taken, more = stream_page(found, query.limit)
    return answered(LogPage(data=[one.as_dict() for one in taken], next=taken[-1].id if more else None), 200)
