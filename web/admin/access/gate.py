"""Admits requests to /admin: with an admin token as Bearer, or with the session that a login opened."""

import math
from collections.abc import Callable

import gevent
from flask import Response, g, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from shared.api_keys.admin_sessions import AdminSession
from shared.api_keys.admin_tokens import AdminToken
from shared.api_keys.store import hash_secret
from shared.errors import ApiError
from shared.protocol.sse import encode_event
from web.admin.access import session_cookie
from web.admin.access.login_records import record_check, record_forbidden
from web.admin.access.permissions import (
    ADMIN_API,
    CHANGING_VIEWS,
    LIVE_VIEW,
    LOGOUT_VIEW,
    SAFE_METHODS,
    check_permission,
)
from web.admin.access.same_origin import check_same_origin
from web.admin.audit_log import record_change
from web.request.rendering import EVENT_STREAM
from web.services import services

#: Seconds of delay added per wrong token, and the maximum delay.
DELAY_STEP_SECONDS, MAX_DELAY_SECONDS = 0.5, 4.0
#: The callback of a sign-in admits whoever knows the `state` of its authorization request, which nobody can guess.
PUBLIC_VIEWS = ("admin.login_page", "admin.login", "sign_in.callback", "static")
#: Server-sent event that tells a live page, which reads no redirects, that its session is over.
LOGGED_OUT = encode_event("session", "logged-out").encode()


def admit() -> BaseResponse | None:
    """Runs before each request to /admin. Redirects browsers to the login page; raises ApiError."""
    try:
        return check_request()
    except ApiError as error:
        if error.status == 403:
            record_forbidden(error)
        raise


def check_request() -> BaseResponse | None:
    if request.endpoint in PUBLIC_VIEWS:
        if request.method not in SAFE_METHODS:
            check_same_origin(required=False)
        return None
    bearer = read_bearer()
    token = check_token(bearer) if bearer else use_session()
    if token is not None:
        g.admin = token
        check_permission(token)
        record_dashboard_change()
        return None
    if request.method == "GET" and not bearer and wants_page():
        return redirect_to_login()
    raise ApiError(
        401, "invalid_admin_token", "the admin token is missing or wrong", headers={"www-authenticate": "Bearer"}
    )


def read_bearer() -> str:
    """The admin token in the request's header, '' without one."""
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    return presented.strip() if scheme.lower() == "bearer" else ""


def wants_page() -> bool:
    """Whether a browser asks: for a page, or by htmx for a part of one."""
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def redirect_to_login() -> BaseResponse:
    """Comes back to the page that was asked for. htmx would put the login page into the open one: it is told to go."""
    if request.endpoint == LIVE_VIEW:
        return Response(LOGGED_OUT, content_type=EVENT_STREAM)
    url = url_for("admin.login_page", next=request.full_path.rstrip("?"))
    return Response(headers={"hx-redirect": url}) if "hx-request" in request.headers else redirect(url)


def check_token(secret: str) -> AdminToken | None:
    """Returns the token's record, or None after a delay if it is wrong.

    Raises ApiError 429 while the caller's network is banned.
    """
    web_services = services()
    check = web_services.admin_login.check(secret, web_services.trusted_proxies.find_caller_address(request))
    record_check(check)
    if check.banned_for:
        headers = {"retry-after": str(math.ceil(check.banned_for))}
        raise ApiError(429, "too_many_logins", "too many wrong admin tokens; try again later", headers=headers)
    if check.token is None:
        gevent.sleep(min(MAX_DELAY_SECONDS, DELAY_STEP_SECONDS * check.wrong_tokens))
    return check.token


def record_dashboard_change() -> None:
    """Records a change that the RQ dashboard is about to make."""
    if request.endpoint in CHANGING_VIEWS:
        _, _, view = request.endpoint.removesuffix("_view").partition(".")
        arguments = request.view_args or {}
        record_change(f"rq.{view}", arguments.get("job_id") or arguments.get("queue_name", ""), arguments)


def use_session() -> AdminToken | None:
    """The admin token that opened the request's session, whose idle time starts again; None if there is no session.

    Wrong session secrets are not counted: they can't be guessed, and a page left open would ban its own operator.
    """
    session = find_session()
    if session is None:
        return None
    token = services().admin_tokens.find_by_digest(session.token_digest)
    if token is None:
        services().admin_sessions.end(session.id)
        return None
    g.admin_session = session
    check_session_request()
    return token


def check_session_request() -> None:
    """Raises ApiError 403 or 415 for an unsafe request that the console's own pages can't have sent."""
    if request.method in SAFE_METHODS:
        return
    check_same_origin(required=request.endpoint != LOGOUT_VIEW)
    has_body = bool(request.content_length) or "transfer-encoding" in request.headers
    if request.blueprint == ADMIN_API and has_body and request.mimetype != "application/json":
        raise ApiError(415, "unsupported_media_type", "with a session the body must be sent as application/json")


def find_session() -> AdminSession | None:
    """A page that updates itself is no use of its session: whoever has left the desk is logged out in time."""
    secret = session_cookie.read_secret()
    return services().admin_sessions.find(secret, is_use=request.endpoint != LIVE_VIEW) if secret else None


def build_admission_check() -> Callable[[], bool]:
    """A function that tells whether this request would still be admitted, while its reply goes on. Raises RedisError.

    The session is not extended by it.
    """
    sessions, tokens = services().admin_sessions, services().admin_tokens
    if bearer := read_bearer():
        return lambda: tokens.find_by_digest(hash_secret(bearer)) is not None
    secret, digest = session_cookie.read_secret(), g.admin_session.token_digest
    return lambda: sessions.find(secret, is_use=False) is not None and tokens.find_by_digest(digest) is not None
