"""The console's login page, and logout."""

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared.api_keys.store import hash_secret
from web.admin.access import session_cookie
from web.admin.access.gate import check_token, find_session
from web.admin.access.login_records import find_address, record_login, record_logout
from web.services import services

blueprint = Blueprint("admin", __name__, url_prefix="/admin", template_folder="../templates")


@blueprint.get("/")
def home() -> BaseResponse:
    return redirect(url_for("rq_dashboard.queues_overview"))


@blueprint.get("/login")
def login_page() -> str:
    return render_template("login.html", wrong=False)


@blueprint.post("/login")
def login() -> BaseResponse | tuple[str, int]:
    secret = request.form.get("token", "")
    token = check_token(secret)
    if token is None:
        return render_template("login.html", wrong=True), 401
    web_services = services()
    if previous := find_session():
        web_services.admin_sessions.end(previous.id)
    session_secret, session = web_services.admin_sessions.open(
        token.id, token.role, hash_secret(secret), find_address()
    )
    record_login(session)
    response = redirect(url_for("admin.home"))
    session_cookie.set_secret(response, session_secret)
    return response


@blueprint.post("/logout")
def logout() -> BaseResponse:
    if session := g.get("admin_session"):
        services().admin_sessions.end(session.id)
        record_logout(session)
    response = redirect(url_for("admin.login_page"))
    session_cookie.delete_secret(response)
    return response


def add_security_headers(response: Response) -> None:
    """Forbids caching, framing and content sniffing of the pages behind the login."""
    response.headers.setdefault("cache-control", "no-store")
    response.headers["x-frame-options"] = "DENY"
    response.headers["x-content-type-options"] = "nosniff"
    response.headers.setdefault("referrer-policy", "same-origin")
