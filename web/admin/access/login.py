"""Authentication for /admin: a login page with a session cookie, or an admin token as Bearer.

Wrong tokens are delayed, and soon ban their network (shared/api_keys/admin_login.py).
"""

import math

import gevent
from flask import Blueprint, Response, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared.api_keys.admin_tokens import AdminToken
from shared.errors import ApiError, NotFound
from web.services import services

blueprint = Blueprint("admin", __name__, url_prefix="/admin", template_folder="../templates")

#: Seconds of delay added per wrong token, and the maximum delay.
DELAY_STEP_SECONDS, MAX_DELAY_SECONDS = 0.5, 4.0
PUBLIC_PATHS = ("/admin/login",)
#: Methods that change nothing.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: Paths that a viewer may post to.
VIEWER_PATHS = ("/admin/logout",)


@blueprint.get("/")
def home() -> BaseResponse:
    return redirect(url_for("rq_dashboard.queues_overview"))


@blueprint.get("/login")
def login_page() -> str:
    return render_template("login.html", wrong=False)


@blueprint.post("/login")
def login() -> BaseResponse | tuple[str, int]:
    token = check_token(request.form.get("token", ""))
    if token is None:
        return render_template("login.html", wrong=True), 401
    session.clear()
    session["token"] = token.id
    session.permanent = True
    return redirect(url_for("admin.home"))


@blueprint.post("/logout")
def logout() -> BaseResponse:
    session.clear()
    return redirect(url_for("admin.login_page"))


def require_login() -> BaseResponse | None:
    """Runs before each request to /admin. Redirects browsers to the login page; raises ApiError 401 or 403."""
    if request.path in PUBLIC_PATHS:
        return None
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    bearer = presented.strip() if scheme.lower() == "bearer" else ""
    token = check_token(bearer) if bearer else find_session_token()
    if token is not None:
        g.admin = token
        check_permission(token)
        return None
    if request.method == "GET" and not presented and "text/html" in request.headers.get("accept", ""):
        return redirect(url_for("admin.login_page"))
    raise ApiError(
        401, "invalid_admin_token", "the admin token is missing or wrong", headers={"www-authenticate": "Bearer"}
    )


def check_permission(token: AdminToken) -> None:
    """Raises ApiError 403 if a viewer tries to change something."""
    if token.role != "admin" and request.method not in SAFE_METHODS and request.path not in VIEWER_PATHS:
        raise ApiError(403, "forbidden", "this admin token may read everything but change nothing")


def find_session_token() -> AdminToken | None:
    """The admin token that opened the session, None if there is no session or the token was revoked."""
    try:
        return services().admin_tokens.get(session["token"]) if "token" in session else None
    except NotFound:
        return None


def check_token(secret: str) -> AdminToken | None:
    """Returns the token's record, or None after a delay if it is wrong.

    Raises ApiError 429 while the caller's network is banned.
    """
    web_services = services()
    check = web_services.admin_login.check(secret, web_services.trusted_proxies.find_caller_address(request))
    if check.banned_for:
        headers = {"retry-after": str(math.ceil(check.banned_for))}
        raise ApiError(429, "too_many_logins", "too many wrong admin tokens; try again later", headers=headers)
    if check.token is None:
        gevent.sleep(min(MAX_DELAY_SECONDS, DELAY_STEP_SECONDS * check.wrong_tokens))
    return check.token


def add_security_headers(response: Response) -> None:
    """Forbids caching, framing and content sniffing of the pages behind the login."""
    response.headers.setdefault("cache-control", "no-store")
    response.headers["x-frame-options"] = "DENY"
    response.headers["x-content-type-options"] = "nosniff"
    response.headers["referrer-policy"] = "same-origin"
