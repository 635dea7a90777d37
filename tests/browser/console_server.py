"""A front in this process that serves the console, over a farm's records and without workers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gevent.pywsgi import WSGIServer
from redis import Redis

from shared.api_keys.admin_tokens import AdminTokens
from shared.settings.schema import PoolSettings, Settings
from web.app import create_app
from web.live_feed import LiveFeed
from web.services import EXTENSION

UPSTREAM_URL, TOKEN_URL = "https://upstream.example/v1", "https://tokens.example/token"


@dataclass
class ConsoleServer:
    """Where the console is, and a token to log in with."""

    url: str
    token: str
    redis: Redis
    #: Who watches live pages.
    feed: LiveFeed[Any]


@contextmanager
def serve_console(redis: Redis, redis_url: str, **settings: Any) -> Iterator[ConsoleServer]:
    pool = PoolSettings(upstream_url=UPSTREAM_URL, token_url=TOKEN_URL)
    app = create_app(Settings(redis_url=redis_url, pools=(pool,), **settings))
    server = WSGIServer(("127.0.0.1", 0), app.wsgi_app, log=None, error_log=logging.getLogger("console"))
    server.start()
    secret, _ = AdminTokens(redis).create("operator", "admin")
    try:
        feed = app.extensions[EXTENSION].live_feed
        yield ConsoleServer(f"http://127.0.0.1:{server.server_port}", secret, redis, feed)
    finally:
        app.extensions[EXTENSION].end_live_pages()
        server.stop()
        app.extensions[EXTENSION].redis.connection_pool.disconnect()
        app.redis_conn.connection_pool.disconnect()  # type: ignore[attr-defined]
