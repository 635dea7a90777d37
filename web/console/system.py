"""The system: processes, Redis, login sessions, admin tokens, and what operators have changed."""

from flask import g, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared.errors import ApiError
from web.admin import admin_tokens, audit_log, pools, sessions
from web.admin.schemas.access import AuditQuery, NewAdminToken
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.lists import read_text
from web.console.timeline.alerts import read_alerts
from web.languages.translation import gettext
from web.version import VERSION

#: Entries of the audit log on a page.
SHOWN_CHANGES = 50


@blueprint.get("/system")
def system() -> str:
    return render_page(
        "system.html",
        active="system",
        live=pools.live(),
        sessions=sessions.list_sessions().data,
        tokens=admin_tokens.list_admin_tokens().data,
        audit=audit_log.audit(AuditQuery(limit=SHOWN_CHANGES, cursor=read_text("cursor")[:100])),
        version=VERSION,
        **read_alerts(),
    )


@blueprint.post("/system/sessions/<session_id>/end")
def end_session(session_id: str) -> BaseResponse:
    current = g.get("admin_session")
    sessions.end_session(session_id)
    if current is not None and current.id == session_id:
        return redirect(url_for("admin.login_page"), 303)
    return go_to("system", "session_ended")


@blueprint.post("/system/tokens")
def create_admin_token() -> str:
    """Makes an admin token, and shows its secret on this page only."""
    name, role = request.form.get("name", "").strip()[:200], request.form.get("role", "")
    if not name or role not in ("admin", "viewer"):
        raise ApiError(422, "invalid_parameter", gettext("A token needs a name and a role."))
    created = admin_tokens.create_admin_token(NewAdminToken(name=name, role="admin" if role == "admin" else "viewer"))
    return render_page("new_admin_token.html", active="system", token=created)


@blueprint.post("/system/tokens/<token_id>/revoke")
def revoke_admin_token(token_id: str) -> BaseResponse:
    admin_tokens.revoke_admin_token(token_id)
    return go_to("system", "token_revoked")
