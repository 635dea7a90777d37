"""The door to /admin: a login page with a session cookie, or an admin token as Bearer; wrong ones are slowed down."""

import gevent
from flask import Blueprint, Response, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared import keys
from shared.api_keys.admin_tokens import AdminToken
from shared.errors import ApiError, NotFound
from web.services import services

blueprint = Blueprint("admin", __name__, url_prefix="/admin", template_folder="templates")

#: Wrong tokens at the login page from one address after which it has to wait; for how many seconds; and no end of them.
MAX_WRONG_TOKENS, BAN_SECONDS, UNLIMITED_TRIES = 10, 300, 2**31
#: Seconds that each wrong token costs more than the one before, up to the longest.
DELAY_STEP_SECONDS, MAX_DELAY_SECONDS = 0.5, 4.0
OPEN_PATHS = ("/admin/login",)
#: Methods that change nothing.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: What a viewer may do all the same.
VIEWER_PATHS = ("/admin/logout",)


@blueprint.get("/")
def home() -> BaseResponse:
    """Until the console is there: the RQ dashboard."""
    return redirect(url_for("rq_dashboard.queues_overview"))


@blueprint.get("/login")
def login_page() -> str:
    """The login form."""
    return render_template("login.html", wrong=False)


@blueprint.post("/login")
def login() -> BaseResponse | tuple[str, int]:
    """Opens a session for an admin token."""
    token = check_token(request.form.get("token", ""), patience=MAX_WRONG_TOKENS)
    if token is None:
        return render_template("login.html", wrong=True), 401
    session.clear()
    session["token"] = token.id
    session.permanent = True
    return redirect(url_for("admin.home"))


@blueprint.post("/logout")
def logout() -> BaseResponse:
    """Ends the session."""
    session.clear()
    return redirect(url_for("admin.login_page"))


def require_login() -> BaseResponse | None:
    """Before a request to /admin: a session or a token whose role may do that, else the login page, 401 or 403."""
    if request.path in OPEN_PATHS:
        return None
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    bearer = presented.strip() if scheme.lower() == "bearer" else ""
    token = check_token(bearer) if bearer else read_session()
    if token is not None:
        g.admin = token
        check_role(token)
        return None
    if request.method == "GET" and not presented and "text/html" in request.headers.get("accept", ""):
        return redirect(url_for("admin.login_page"))
    raise ApiError(
        401, "invalid_admin_token", "the admin token is missing or wrong", headers={"www-authenticate": "Bearer"}
    )


def check_role(token: AdminToken) -> None:
    """Raises ApiError 403 when a viewer would change something."""
    if token.role != "admin" and request.method not in SAFE_METHODS and request.path not in VIEWER_PATHS:
        raise ApiError(403, "forbidden", "this admin token may look at everything and change nothing")


def read_session() -> AdminToken | None:
    """The token that has opened the session, if it is still good."""
    try:
        return services().admin_tokens.get(session["token"]) if "token" in session else None
    except NotFound:
        return None


def check_token(presented: str, patience: int = UNLIMITED_TRIES) -> AdminToken | None:
    """The token of that text, None for a wrong one: each costs more time, and 429 when patience is over."""
    farm = services()
    redis = farm.redis
    if found := farm.admin_tokens.find(presented):
        return found
    counter = keys.failed_logins(farm.trusted_proxies.find_caller_address(request) or "?")
    if int(redis.get(counter) or 0) >= patience:
        headers = {"retry-after": str(BAN_SECONDS)}
        raise ApiError(429, "too_many_logins", "too many wrong admin tokens; try again later", headers=headers)
    failures = int(redis.incr(counter))
    redis.expire(counter, BAN_SECONDS)
    gevent.sleep(min(MAX_DELAY_SECONDS, DELAY_STEP_SECONDS * failures))
    return None


def harden_headers(response: Response) -> None:
    """Pages behind the login are not kept, framed or sniffed."""
    response.headers.setdefault("cache-control", "no-store")
    response.headers["x-frame-options"] = "DENY"
    response.headers["x-content-type-options"] = "nosniff"
    response.headers["referrer-policy"] = "same-origin"
