"""gunicorn's configuration (`gunicorn -c python:web.gunicorn_conf`), derived from the farm's settings.

The standard library is patched here, in the master, so that the modules are loaded once and shared by all workers.
"""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import os
import sys
from typing import Any

from flask import Flask

from shared import gc_tuning
from shared.api_keys.admin_tokens import AdminTokens, warn_if_weak
from shared.api_keys.store import ApiKeys
from shared.errors import FarmError
from shared.file_limit import raise_file_limit
from shared.network.front_socket import SOCKET_VARIABLE
from shared.observability import logs
from shared.observability.audit_log import store_configured_token
from shared.redis_connection.client import check_server, connect
from shared.redis_connection.data_version import stamp_data
from shared.standard_streams import keep_writable
from web.app import create_app
from web.server.gunicorn_arbiter import adopt
from web.server.http_options import HTTP_OPTIONS
from web.services import EXTENSION
from web.settings import FrontSettings

try:
    front_settings = FrontSettings()
    settings = front_settings.current
except FarmError as error:
    print(f"farm: {error}", file=sys.stderr)
    sys.exit(1)

wsgi_app = "web.gunicorn_conf:make_app()"
worker_class = "web.server.gunicorn_worker.FarmGunicornWorker"
workers = settings.front_count
front_socket = os.environ.get(SOCKET_VARIABLE, "")
if front_socket:
    bind = f"unix:{front_socket}"
    #: Only its owner may connect to the unix socket.
    umask = 0o077
else:
    bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
#: Maximum number of open connections per front, queued requests included.
worker_connections = 20_000
backlog = 4096
#: Seconds that an idle connection is kept open: longer than common proxies keep theirs.
keepalive = 75
#: Seconds without a heartbeat after which gunicorn kills a worker.
timeout = 60
#: By default all instances of one user would share one socket file in the home directory.
control_socket_disable = True
loglevel = "warning" if settings.log_level == "info" else settings.log_level
proc_name = "farm-web"
globals().update(HTTP_OPTIONS)
ADMIN_HINT = (
    "there is no admin token: set FARM_ADMIN_TOKEN, or run `./farm admin-tokens create NAME --role admin` "
    "(in a container: `python -m launcher admin-tokens …`)"
)


def make_app() -> Flask:
    """Builds the app of one front from the last valid settings."""
    return create_app(front_settings.current)


def on_starting(server: Any) -> None:
    """Runs once, in the master: checks Redis and stores the configured API key and admin token."""
    keep_writable()
    logs.configure_logging(settings.log_level, settings.log_format)
    raise_file_limit()
    adopt(server, front_settings)
    try:
        redis = connect(settings.redis_url)
        check_server(redis)
        stamp_data(redis)
        if settings.api_key:
            ApiKeys(redis).create_if_missing(settings.api_key, "FARM_API_KEY")
        warn_if_weak(settings.admin_token)
        if settings.admin_token:
            store_configured_token(redis, settings.admin_token)
        elif not AdminTokens(redis).list():
            # `./farm up` makes one and shows it on the terminal; here it would end up in the container's log.
            print(f"farm: {ADMIN_HINT}", file=sys.stderr, flush=True)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        sys.exit(1)
    redis.connection_pool.disconnect()


def post_worker_init(worker: Any) -> None:
    worker.front = worker.wsgi.extensions[EXTENSION]
    worker.front.start()
    gc_tuning.tune_gc()


def worker_exit(server: Any, worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions[EXTENSION].shut_down()
