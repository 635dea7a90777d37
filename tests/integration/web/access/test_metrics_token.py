"""/metrics and /api/status ask for FARM_METRICS_TOKEN if it is set."""

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared.settings.schema import Settings
from web.app import create_app
from web.services import EXTENSION

TOKEN = "a-token-for-prometheus"


@pytest.fixture
def start_client(redis: Redis, redis_url: str) -> Iterator[Callable[[str], FlaskClient]]:
    """A client of an app with this token."""
    apps = []

    def start(token: str) -> FlaskClient:
        apps.append(create_app(Settings(redis_url=redis_url, metrics_token=token)))
        return apps[-1].test_client()

    yield start
    for app in apps:
        app.extensions[EXTENSION].redis.connection_pool.disconnect()


@pytest.mark.parametrize("path", ["/metrics", "/api/status"])
def test_token_is_needed_if_it_is_set(start_client: Callable[[str], FlaskClient], path: str):
    client = start_client(TOKEN)
    for authorization in ("", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", "Bearer ünïcode"):
        refused = client.get(path, headers={"authorization": authorization})
        assert (refused.status_code, refused.json["error"]["code"]) == (401, "invalid_metrics_token")
    assert client.get(path, headers={"authorization": f"bearer {TOKEN}"}).status_code == 200
    assert start_client("").get(path).status_code == 200


def test_health_checks_need_no_token(start_client: Callable[[str], FlaskClient]):
    client = start_client(TOKEN)
    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 503)
