"""Fixtures of the tests of logins and sessions."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared.settings.schema import Settings
from web.app import create_app
from web.services import EXTENSION


@pytest.fixture
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong tokens are answered at once."""
    monkeypatch.setattr("web.admin.access.gate.DELAY_STEP_SECONDS", 0.0)


@pytest.fixture
def start_app(redis: Redis, redis_url: str) -> Iterator[Callable[..., Flask]]:
    """Makes the app of a front; arguments are settings. Closes its connections after the test."""
    apps: list[Flask] = []

    def start(**settings: Any) -> Flask:
        apps.append(create_app(Settings(redis_url=redis_url, **settings)))
        return apps[-1]

    yield start
    for app in apps:
        app.extensions[EXTENSION].redis.connection_pool.disconnect()
        app.redis_conn.connection_pool.disconnect()  # type: ignore[attr-defined]


@pytest.fixture
def client(start_app: Callable[..., Flask]) -> FlaskClient:
    """A browser without a session."""
    return start_app().test_client()
