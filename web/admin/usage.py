"""Admin API: usage."""

import time
from collections.abc import Iterable
from typing import Any

from flask import Response

from shared.errors import ApiError
from shared.observability.names_by_id import name_columns, name_rows
from shared.observability.usage import METRICS, GroupSums, SumsQuery, UsageSums, build_row
from web.admin.api import router
from web.admin.export import CSV_TYPE, JSONL_TYPE, export_rows
from web.admin.openapi import to_response
from web.admin.schemas.usage import UsageQuery, UsageReport
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
    """The rows of a report, sorted by their groups. Raises ApiError 409."""
    return build_rows(query, sorted(sum_up(query)))


def sum_up(query: UsageQuery) -> list[GroupSums]:
    """The sums of a report, in no order. Raises ApiError 409."""
    return UsageSums(services().redis).sum_up(build_sums_query(query))


def build_sums_query(query: UsageQuery) -> SumsQuery:
    """Raises ApiError 409 for names that are not recorded together."""
    group_by = list_groups(query)
    filters = {name: value for name in ("key", "pool", "model", "credential") if (value := getattr(query, name))}
    if "credential" in (*group_by, *filters) and {"key", "model"} & {*group_by, *filters}:
        raise ApiError(
            409, "conflict", "usage is recorded by credential, or by key and model, but not by both", param="by"
        )
    until = time.time() if query.until is None else query.until
    since = until - DAY_SECONDS if query.since is None else query.since
    return SumsQuery(since, until, query.step, group_by, filters)


def build_rows(query: UsageQuery, found: Iterable[GroupSums]) -> list[dict[str, Any]]:
    """Rows with names beside their ids."""
    return list(name_rows(services().redis, (build_row(list_groups(query), *sums) for sums in found)))
