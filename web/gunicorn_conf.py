"""gunicorn's configuration (`gunicorn -c python:web.gunicorn_conf`), derived from the farm's settings.

The standard library is patched here, in the master, so that the modules are loaded once and shared by all workers.
"""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import resource
import sys
from typing import Any

from flask import Flask

from shared import gc_tuning
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.errors import FarmError, SettingsError
from shared.observability import logs
from shared.redis_connection.client import check_server, connect
from shared.settings.loading import load_settings
from web.app import create_app
from web.services import EXTENSION

try:
    settings = load_settings()
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
except FarmError as error:
    print(f"farm: {error}", file=sys.stderr)
    sys.exit(1)

wsgi_app = "web.gunicorn_conf:make_app()"
worker_class = "web.server.gunicorn_worker.FarmGunicornWorker"
workers = settings.front_count
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
#: Maximum number of open connections per front, queued requests included.
worker_connections = 20_000
backlog = 4096
#: Seconds that an idle connection is kept open: longer than common proxies keep theirs.
keepalive = 75
#: Seconds that running requests get to finish when the front stops.
graceful_timeout = 30
#: Seconds without a heartbeat after which gunicorn kills a worker.
timeout = 60
#: By default all instances of one user would share one socket file in the home directory.
control_socket_disable = True
loglevel = "warning" if settings.log_level == "info" else settings.log_level
proc_name = "farm-web"


def make_app() -> Flask:
    """Builds the app of one front from the last valid settings."""
    return create_app(settings)


def on_reload(server: Any) -> None:
    """Reloads the settings at SIGHUP, in the master, before the fronts are replaced; keeps the old ones on an error."""
    global settings  # noqa: PLW0603 (gunicorn's hooks share nothing but this module)
    try:
        settings = load_settings()
        print("farm: reloaded", file=sys.stderr, flush=True)
    except FarmError as error:
        print(f"farm: not reloaded, the settings are unchanged: {error}", file=sys.stderr, flush=True)


def on_starting(server: Any) -> None:
    """Runs once, in the master: checks Redis and stores the configured API key and admin token."""
    logs.configure_logging(settings.log_level, settings.log_format)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        redis = connect(settings.redis_url)
        check_server(redis)
        if settings.api_key:
            ApiKeys(redis).create_if_missing(settings.api_key, "FARM_API_KEY")
        new_admin_token = AdminTokens(redis).ensure_first(settings.admin_token)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        sys.exit(1)
    if new_admin_token:
        print(f"farm: admin token (shown once): {new_admin_token}", file=sys.stderr, flush=True)
    redis.connection_pool.disconnect()


def post_worker_init(worker: Any) -> None:
    worker.wsgi.extensions[EXTENSION].start()
    gc_tuning.tune_gc()


def worker_exit(server: Any, worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions[EXTENSION].shut_down()
