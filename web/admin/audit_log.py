"""The audit log in the admin API, and the entries that the API itself writes."""

from collections.abc import Mapping
from typing import Any

from flask import g

from web.admin.api import contract
from web.admin.pagination import entry_id, stream_page
from web.admin.schemas import (
    AuditPage,
    Page,
)
from web.services import parts


def note(action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """A line in the audit log."""
    parts().audit.note(f"token {g.admin.id}", action, target, details)


@contract.route("GET", "/audit", query=Page, answer=AuditPage, errors=(404,))
def audit(query: Page) -> AuditPage:
    """What operators have changed, newest first."""
    taken, more = stream_page(parts().audit.newest_first(entry_id(query.cursor)), query.limit)
    return AuditPage(data=taken, next=taken[-1].id if more else None)
