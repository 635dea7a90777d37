"""Admin API: usage."""

import time
from typing import Any

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
    rows = query_usage(query)
    if query.format != "json":
        columns = name_columns((*list_groups(query), *METRICS, "total_tokens"))
        return export_rows(rows, columns, query.format)
    return to_response(UsageReport(data=rows), 200)


def list_groups(query: UsageQuery) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in query.by.split(",") if name))


def query_usage(query: UsageQuery) -> list[dict[str, Any]]:
    """The rows of a report. Raises ApiError 409 for names that are not recorded together."""
    group_by = list_groups(query)
    filters = {name: value for name in ("key", "pool", "model", "credential") if (value := getattr(query, name))}
    if "credential" in (*group_by, *filters) and {"key", "model"} & {*group_by, *filters}:
        raise ApiError(
            409, "conflict", "usage is recorded by credential, or by key and model, but not by both", param="by"
        )
    until = time.time() if query.until is None else query.until
    since = until - DAY_SECONDS if query.since is None else query.since
    rows = UsageSums(services().redis).query(SumsQuery(since, until, query.step, group_by, filters))
    return list(name_rows(services().redis, rows))
