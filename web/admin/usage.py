"""Usage sums in the admin API."""

import time

from flask import Response

from shared.errors import ApiError
from shared.observability.usage import METRICS, SumsQuery, UsageSums
from web.admin.api import router
from web.admin.export import CSV, JSONL, export_rows
from web.admin.openapi import to_response
from web.admin.schemas import (
    UsageQuery,
    UsageReport,
)
from web.services import services

DAY_SECONDS = 86_400


@router.route("GET", "/usage", query=UsageQuery, response=UsageReport, errors=(409,), media=(CSV, JSONL))
def usage(query: UsageQuery) -> Response:
    """What was used, added up by what is asked."""
    by = tuple(name for name in query.by.split(",") if name)
    only = {name: value for name in ("key", "pool", "model", "credential") if (value := getattr(query, name))}
    if "credential" in (*by, *only) and {"key", "model"} & {*by, *only}:
        raise ApiError(409, "conflict", "sums are kept by credential, or by key and model", param="by")
    until = time.time() if query.until is None else query.until
    since = until - DAY_SECONDS if query.since is None else query.since
    rows = UsageSums(services().redis).query(SumsQuery(since, until, query.step, tuple(dict.fromkeys(by)), only))
    if query.format != "json":
        return export_rows(rows, (*dict.fromkeys(by), *METRICS, "total_tokens"), query.format)
    return to_response(UsageReport(data=rows), 200)
