"""The audit log in the admin API, and the entries that the API itself writes."""

from collections.abc import Mapping
from typing import Any

from flask import g

from web.admin.api import router
from web.admin.pagination import parse_stream_cursor, take_page
from web.admin.schemas import (
    AuditPage,
    Page,
)
from web.services import services


def record_change(action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """A line in the audit log."""
    services().audit_log.record(f"token {g.admin.id}", action, target, details)


@router.route("GET", "/audit", query=Page, response=AuditPage, errors=(404,))
def audit(query: Page) -> AuditPage:
    """What operators have changed, newest first."""
    taken, more = take_page(services().audit_log.read_newest_first(parse_stream_cursor(query.cursor)), query.limit)
    return AuditPage(data=taken, next=taken[-1].id if more else None)
