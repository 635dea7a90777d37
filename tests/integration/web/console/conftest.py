"""The console's pages as a browser gets them, from an app in this process."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared.api_keys.admin_tokens import AdminTokens
from shared.settings.schema import PoolSettings, Settings
from tests.console_content import fill_farm
from web.app import create_app
from web.services import EXTENSION

#: What a browser says of a request that a page of the farm has sent.
OWN_PAGE = {"origin": "http://localhost", "accept": "text/html"}
LogIn = Callable[..., FlaskClient]


@pytest.fixture
def app(redis: Redis, redis_url: str) -> Iterator[Flask]:
    pool = PoolSettings(upstream_url="https://upstream.example/v1", token_url="https://tokens.example/token")
    app = create_app(Settings(redis_url=redis_url, pools=(pool,)))
    yield app
    app.extensions[EXTENSION].redis.connection_pool.disconnect()
    app.redis_conn.connection_pool.disconnect()  # type: ignore[attr-defined]


@pytest.fixture
def ids(redis: Redis) -> list[str]:
    """The accounts of a farm with content."""
    return fill_farm(redis)


@pytest.fixture
def log_in(app: Flask, redis: Redis) -> LogIn:
    """A browser with a session of this role."""

    def log_in(role: Any = "admin") -> FlaskClient:
        client = app.test_client()
        client.environ_base |= {f"HTTP_{name.upper()}": value for name, value in OWN_PAGE.items()}
        secret, _ = AdminTokens(redis).create(f"the {role}", role)
        assert client.post("/admin/login", data={"token": secret}).status_code == 302
        return client

    return log_in


@pytest.fixture
def admin(log_in: LogIn) -> FlaskClient:
    return log_in()
