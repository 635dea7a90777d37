"""Blueprint of the console: what all its pages share."""

from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from shared.credentials.private import is_caller
from shared.errors import ApiError
from web.admin.access.permissions import LIVE_VIEW
from web.console.parts import account_time, formats, wording
from web.console.parts.navigation import ADMIN_PAGES, PAGES
from web.errors import handle_redis_error
from web.languages import translation
from web.languages.translation import gettext
from web.server.static_files import build_static_url

PREFIX = "/admin"
COOKIE, THEMES = "farm_theme", ("light", "dark")
#: Query parameter that says, after a redirect, what has been done: a key of wording.NOTICES.
NOTICE, COUNT = "done", "count"
blueprint = Blueprint("console", __name__, url_prefix=PREFIX)


@blueprint.after_request
def keep_choices(response: Response) -> Response:
    """Keeps the language and the theme that were chosen by a link; a live page goes on in the language that it has."""
    if request.endpoint == LIVE_VIEW:
        return response
    theme = request.args.get("theme")
    if theme in (*THEMES, "auto"):
        response.set_cookie(
            COOKIE, theme, max_age=translation.COOKIE_SECONDS, path=PREFIX, samesite="Lax", httponly=True
        )
    return translation.keep_choice(response)


@blueprint.app_context_processor
def provide_context() -> dict[str, Any]:
    """What every template may use."""
    chosen = request.args.get("theme") or request.cookies.get(COOKIE, "")
    admin = g.get("admin")
    is_admin = admin is not None and admin.role == "admin"
    return {
        "theme": chosen if chosen in THEMES else "auto",
        "is_admin": is_admin,
        "admin": admin,
        "static_url": build_static_url,
        "url_for": find_url,
        "with_query": build_own_url,
        "pages": {page: name for page, name in PAGES.items() if is_admin or page not in ADMIN_PAGES},
        "format": formats,
        "account_time": account_time,
        "wording": wording,
        "is_caller": is_caller,
    }


def find_url(endpoint: str, **values: Any) -> str:
    """As Flask's url_for, which takes 50 µs: lists and live pages lead to the same things again and again."""
    return build_url(request.script_root, endpoint, tuple(values.items()))


@lru_cache(maxsize=10_000)
def build_url(root: str, endpoint: str, values: tuple[tuple[str, Any], ...]) -> str:
    """`root`: the path at which the app is mounted, on which URLs depend."""
    return url_for(endpoint, **dict(values))


def build_own_url(**changes: Any) -> str:
    """This page's URL with some parameters of the query changed; None and '' take one out."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in (NOTICE, COUNT, *changes)]
    added = [(name, str(value)) for name, value in changes.items() if value not in (None, "")]
    query = urlencode([*kept, *added])
    return f"{request.path}?{query}" if query else request.path


def go_to(endpoint: str, done: str = "", count: int = 0, **values: Any) -> BaseResponse:
    """Redirects after a change, to a page that says what was done (Post/Redirect/Get)."""
    notice = {NOTICE: done or None, COUNT: count or None}
    return redirect(url_for(f"console.{endpoint}", **{**values, **notice}), HTTPStatus.SEE_OTHER)


def read_notice() -> str:
    """The sentence that says what has been done before this page was opened, '' for nothing."""
    count = request.args.get(COUNT, "0")
    return wording.describe_notice(request.args.get(NOTICE, ""), int(count[:9]) if count.isdecimal() else 0)


def render_page(template: str, **values: Any) -> str:
    return render_template(f"console/{template}", notice=read_notice(), **values)


@blueprint.errorhandler(ApiError)
def show_error(error: ApiError) -> BaseResponse:
    """An error as a page; the machine-readable code stays beside the sentence."""
    page = render_template("console/error.html", status=error.status, code=error.code, error=error)
    return Response(page, error.status, error.headers)


@blueprint.errorhandler(HTTPException)
def show_http_error(error: HTTPException) -> BaseResponse:
    return show_error(ApiError(error.code or 500, "http_error", gettext("The request can't be served.")))


@blueprint.errorhandler(RedisError)
def show_redis_error(error: RedisError) -> BaseResponse:
    handle_redis_error(error)
    return show_error(ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error"))
