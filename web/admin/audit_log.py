"""Admin API: the audit log, and recording the API's own changes in it."""

from collections.abc import Mapping
from typing import Any

from flask import g

from web.admin.api import router
from web.admin.pagination import parse_stream_cursor, take_page
from web.admin.schemas.access import AuditPage, AuditQuery
from web.services import services


def record_change(action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """Records a change made with the current request's admin token."""
    services().audit_log.record(name_actor(), action, target, details)


def name_actor() -> str:
    """Who makes the current request, as the audit log calls them."""
    return f"token {g.admin.id}"


@router.route("GET", "/audit", query=AuditQuery, response=AuditPage, errors=(404,))
def audit(query: AuditQuery) -> AuditPage:
    """List operators' changes, newest first."""
    entries = services().audit_log.read_newest_first(parse_stream_cursor(query.cursor))
    wanted = (entry for entry in entries if query.target in ("", entry.target))
    page, has_more = take_page(wanted, query.limit)
    return AuditPage(data=page, next=page[-1].id if has_more else None)
