"""Fixtures of the tests of logins and sessions."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared.settings.schema import Settings
from web.app import create_app


@pytest.fixture
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong tokens are answered at once."""
    monkeypatch.setattr("web.admin.access.gate.DELAY_STEP_SECONDS", 0.0)


@pytest.fixture
def start_app(redis: Redis, redis_url: str) -> Callable[..., Flask]:
    """Makes the app of a front; arguments are settings."""

    def start(**settings: Any) -> Flask:
        return create_app(Settings(redis_url=redis_url, **settings))

    return start


@pytest.fixture
def client(start_app: Callable[..., Flask]) -> FlaskClient:
    """A browser without a session."""
    return start_app().test_client()
