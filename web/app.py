"""The app factory."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface
from werkzeug.exceptions import BadHost

from shared import names
from shared.redis_connection.client import connect
from shared.settings.loading import load_settings
from shared.settings.schema import Settings
from web import errors
from web.admin import (
    admin_tokens,
    api,
    api_keys,
    audit_log,
    credentials,
    pools,
    request_log,
    sessions,
    usage,
)
from web.admin import (
    models as admin_models,
)
from web.admin.access import gate, login, security_headers
from web.admin.alerts import resource as alerts
from web.admin.batches import resource as admin_batches
from web.admin.bulk import resource as bulk
from web.admin.files import resource as admin_files
from web.admin.playground import resource as playground
from web.admin.reload import resource as reload
from web.admin.sign_in import callback, resource
from web.admin.telemetry import capacity, events, planner, queue, samples, tape
from web.console import pages as console
from web.console.live.fragments import render_topics
from web.languages import translation
from web.request_context import current_request
from web.routes import batches, billing, dashboard, files, health, index, metrics, models, relay, stored_objects
from web.server import cors
from web.server.endpoint_paths import EndpointPaths
from web.server.paths import is_own_page, normalize_path
from web.server.request_input import MAX_FORM_BYTES, limit_body
from web.services import EXTENSION, WebServices, build_services

#: Modules that register their routes on `api.contract` when imported.
ADMIN_API = (
    credentials,
    bulk,
    resource,
    api_keys,
    admin_files,
    admin_models,
    pools,
    reload,
    queue,
    playground,
    tape,
    capacity,
    planner,
    samples,
    events,
    alerts,
    usage,
    request_log,
    admin_batches,
    admin_tokens,
    sessions,
    audit_log,
)
#: Paths below /v1 of what callers store.
COLLECTIONS = ("files", "batches")
#: Path prefix of the admin console and API.
ADMIN_PREFIX = "/admin"


class FarmFlask(Flask):
    """Flask that takes any Host header, and does not check at each call whether a view is a coroutine: none is."""

    def create_url_adapter(self, request: Request | None) -> Any:
        """Flask: no route depends on the host, so one that is no host name is no reason to refuse a request."""
        try:
            return super().create_url_adapter(request)
        except BadHost:
            assert request is not None
            return self.url_map.bind("localhost", path_info=request.path, default_method=request.method)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


class NoSessions(SessionInterface):
    """Flask's signed session cookies are not used: login sessions are kept on the server (web/admin/access)."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


def create_app(settings: Settings | None = None) -> Flask:
    """Builds the WSGI app. Raises SettingsError."""
    settings = settings or load_settings()
    app = FarmFlask("web", static_url_path="/admin/static")
    app.session_interface = NoSessions()
    services = build_services(settings)
    app.extensions[EXTENSION] = services
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES,
    )
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # Two paths lead to each endpoint, and many HTTP clients don't follow a redirect of a POST.
    app.url_map.redirect_defaults = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.before_request(lambda: begin_request(services))
    app.after_request(lambda response: finish_response(services, response))
    errors.register_handlers(app)
    translation.install(app)
    for module in (
        relay,
        models,
        files,
        batches,
        billing,
        index,
        stored_objects,
        health,
        metrics,
        login,
        callback,
        api,
        console,
    ):
        app.register_blueprint(module.blueprint)
    services.live_feed.render = partial(render_topics, app)
    dashboard.mount(app, connect(settings.redis_url, size=dashboard.MAX_CONNECTIONS))
    app.wsgi_app = normalize_path(app.wsgi_app, EndpointPaths(relay.ENDPOINTS, COLLECTIONS))  # type: ignore[method-assign,assignment]
    return app


def begin_request(services: WebServices) -> Any:
    """Assigns the request id, which is also the job id; limits the body; handles admin requests and CORS preflights."""
    request, context = current_request()
    context.request_id = names.new_request_id()
    settings = services.settings
    limit_body(request, settings)
    services.admin_networks.check(request)
    if request.path.startswith(ADMIN_PREFIX):
        return gate.admit()
    if request.method == "OPTIONS" and not is_own_page(request.path):
        return cors.build_preflight_response(request)
    return None


def finish_response(services: WebServices, response: Response) -> Response:
    """Adds the request id and the CORS or security headers to every reply, and counts relay requests."""
    request, context = current_request()
    headers = response.headers
    if request.path.startswith(ADMIN_PREFIX):
        security_headers.add_security_headers(response)
    elif not is_own_page(request.path):
        headers.update(cors.HEADERS)
    headers["x-request-id"] = context.get("request_id", "")
    headers.update(context.get("reply_headers", {}))
    if "endpoint" in context and request.method != "OPTIONS":
        services.counters.increment("requests", context.get("pool", ""), context.endpoint, str(response.status_code))
    return response
