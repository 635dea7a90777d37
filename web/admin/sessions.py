"""Admin API: login sessions of the console."""

from flask import g

from shared.api_keys.admin_sessions import MAX_AGE_SECONDS, AdminSession
from shared.errors import ApiError, NotFound
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.schemas.access import Session, SessionList
from web.services import services


@router.route("GET", "/sessions", response=SessionList)
def list_sessions() -> SessionList:
    """List all login sessions, the last used one first."""
    return SessionList(data=[to_schema(session) for session in services().admin_sessions.list()])


def to_schema(session: AdminSession) -> Session:
    current = g.get("admin_session")
    return Session(
        **session.model_dump(exclude={"token_digest"}),
        expires_at=session.created_at + MAX_AGE_SECONDS,
        current=current is not None and current.id == session.id,
    )


@router.route("DELETE", "/sessions/<session_id>", status=204)
def end_session(session_id: str) -> None:
    """End a login session."""
    try:
        services().admin_sessions.end(session_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None
    record_change("session.end", session_id)


@router.route("DELETE", "/sessions", status=204)
def end_all_sessions() -> None:
    """End all login sessions, the caller's included."""
    count = services().admin_sessions.end_all()
    record_change("session.end_all", "", {"sessions": count})
