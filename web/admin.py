"""The door to /admin: a login page with a session cookie, or the admin token as Bearer; wrong ones are slowed down."""

import gevent
from flask import Blueprint, Response, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared import admin_token, keys
from shared.errors import ApiError
from web.parts import parts

blueprint = Blueprint("admin", __name__, url_prefix="/admin", template_folder="templates")

#: Wrong tokens from one address after which it has to wait; and for how many seconds.
PATIENCE, BAN = 10, 300
#: Seconds that each wrong token costs more than the one before, up to the longest.
STEP, LONGEST = 0.5, 4.0
OPEN_PATHS = ("/admin/login",)


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
    """Opens a session for the admin token."""
    if not is_token(request.form.get("token", "")):
        return render_template("login.html", wrong=True), 401
    session.clear()
    session["admin"] = True
    session.permanent = True
    return redirect(url_for("admin.home"))


@blueprint.post("/logout")
def logout() -> BaseResponse:
    """Ends the session."""
    session.clear()
    return redirect(url_for("admin.login_page"))


def guard() -> BaseResponse | None:
    """Before every request to /admin: a session or the token, else the login page or 401."""
    if not request.path.startswith("/admin") or request.path in OPEN_PATHS or session.get("admin"):
        return None
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and is_token(presented.strip()):
        return None
    if request.method == "GET" and not presented and "text/html" in request.headers.get("accept", ""):
        return redirect(url_for("admin.login_page"))
    raise ApiError(
        401, "invalid_admin_token", "the admin token is missing or wrong", headers={"www-authenticate": "Bearer"}
    )


def is_token(presented: str) -> bool:
    """Whether that is the admin token. Raises ApiError 429 after too many wrong ones from one address."""
    farm = parts()
    redis = farm.redis
    counter = keys.logins(farm.proxies.client(request) or "?")
    if presented and admin_token.matches(redis, presented):
        return True
    if int(redis.get(counter) or 0) >= PATIENCE:
        headers = {"retry-after": str(BAN)}
        raise ApiError(429, "too_many_logins", "too many wrong admin tokens; try again later", headers=headers)
    failures = int(redis.incr(counter))
    redis.expire(counter, BAN)
    gevent.sleep(min(LONGEST, STEP * failures))
    return False


def no_store(response: Response) -> Response:
    """Pages behind the login are not kept, framed or sniffed."""
    if request.path.startswith("/admin"):
        response.headers.setdefault("cache-control", "no-store")
        response.headers["x-frame-options"] = "DENY"
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "same-origin"
    return response
