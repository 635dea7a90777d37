"""Admin API: usage."""

import time

from flask import Response

from shared.errors import ApiError
from shared.observability.names_by_id import name_columns, name_rows
from shared.observability.usage import METRICS, SumsQuery, UsageSums
from web.admin.api import router
from web.admin.export import CSV_TYPE, JSONL_TYPE, export_rows
from web.admin.openapi import to_response
from web.admin.schemas import UsageQuery, UsageReport
from web.services import services

DAY_SECONDS = 86_400


@router.route("GET", "/usage", query=UsageQuery, response=UsageReport, errors=(409,), media=(CSV_TYPE, JSONL_TYPE))
def usage(query: UsageQuery) -> Response:
    """Get usage, summed by the requested names."""
    group_by = tuple(name for name in query.by.split(",") if name)
    filters = {name: value for name in ("key", "pool", "model", "credential") if (value := getattr(query, name))}
    if "credential" in (*group_by, *filters) and {"key", "model"} & {*group_by, *filters}:
        raise ApiError(
            409, "conflict", "usage is recorded by credential, or by key and model, but not by both", param="by"
        )
    until = time.time() if query.until is None else query.until
    since = until - DAY_SECONDS if query.since is None else query.since
    rows = UsageSums(services().redis).query(
        SumsQuery(since, until, query.step, tuple(dict.fromkeys(group_by)), filters)
    )
    rows = list(name_rows(services().redis, rows))
    if query.format != "json":
        columns = name_columns((*dict.fromkeys(group_by), *METRICS, "total_tokens"))
        return export_rows(rows, columns, query.format)
    return to_response(UsageReport(data=rows), 200)
