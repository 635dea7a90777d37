"""The app factory: the one place where the front's parts meet."""

import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from shared.redis_connection.retry import retry_forever
from shared.settings.loading import load_settings
from shared.settings.schema import Settings
from web import errors
from web.admin import admin_tokens, api, api_keys, audit_log, credentials, login, pools, request_log, usage
from web.request_context import current_request
from web.routes import billing, dashboard, health, metrics, models, relay
from web.server import cors
from web.services import EXTENSION, WebServices, build_services

#: What the admin API consists of: each has put its routes into `api.contract`.
ADMIN_API = (credentials, api_keys, pools, usage, request_log, admin_tokens, audit_log)
#: Where the console lives: it has a login session, so no other site's page may reach it.
ADMIN_PREFIX = "/admin"
#: Seconds that a login session lasts.
SESSION_SECONDS = 12 * 3600


class FarmFlask(Flask):
    """Flask without the question, asked for each request of each function, whether it is a coroutine: none is."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Flask: the function as a synchronous one."""
        return func


class AdminSessions(SecureCookieSessionInterface):
    """Flask's sessions for the console alone: opening one costs a relay request more than its routing."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Flask: the session of a request, None for none."""
        return super().open_session(app, request) if request.path.startswith(ADMIN_PREFIX) else None


def create_app(settings: Settings | None = None) -> Flask:
    """The front as a WSGI app. Raises SettingsError, StoreUnavailable."""
    settings = settings or load_settings()
    app = FarmFlask("web", static_url_path="/admin/static")
    app.session_interface = AdminSessions()
    services = build_services(settings)
    app.extensions[EXTENSION] = services
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=settings.max_body,
        SECRET_KEY=retry_forever(services.admin_tokens.session_secret, "the front waits for its start"),
        SESSION_COOKIE_NAME="farm_admin",
        SESSION_COOKIE_PATH="/admin",
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=SESSION_SECONDS,
    )
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.before_request(begin_request)
    app.after_request(lambda response: finish_response(services, response))
    errors.register_handlers(app)
    for module in (relay, models, billing, health, metrics, login, api):
        app.register_blueprint(module.blueprint)
    dashboard.mount(app, settings.redis_url)
    app.wsgi_app = merge_slashes(app.wsgi_app)  # type: ignore[method-assign,assignment]
    return app


def merge_slashes(wsgi_app: WSGIApplication) -> WSGIApplication:
    """A base URL that ends in a slash gives `/v1//chat/completions`: the same, and no redirect of a POST."""

    def call_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "//" in environ["PATH_INFO"]:
            environ["PATH_INFO"] = re.sub("//+", "/", environ["PATH_INFO"])
        return wsgi_app(environ, start_response)

    return call_app


def begin_request() -> Any:
    """Every request has an id, which is its job's id too; some are answered at the door."""
    request, context = current_request()
    context.request_id = f"req_{uuid.uuid4().hex}"
    if request.path.startswith(ADMIN_PREFIX):
        return login.require_login()
    return cors.build_preflight_response(request) if request.method == "OPTIONS" else None


def finish_response(services: WebServices, response: Response) -> Response:
    """Every answer carries the request's id; relayed ones are counted."""
    request, context = current_request()
    headers = response.headers
    if request.path.startswith(ADMIN_PREFIX):
        login.harden_headers(response)
    else:
        headers.update(cors.HEADERS)
    headers["x-request-id"] = context.get("request_id", "")
    headers.update(context.get("reply_headers", {}))
    if "endpoint" in context and request.method != "OPTIONS":
        services.counters.increment("requests", context.get("pool", ""), context.endpoint, str(response.status_code))
    return response
