"""FARM_ADMIN_NETWORKS closes the operator's pages to all other addresses, and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared.api_keys.admin_tokens import AdminTokens
from shared.settings.loading import load_settings
from tests.integration.front_harness import FrontHarness
from web.app import create_app
from web.services import EXTENSION

SECRET = "a configured admin token"
BEARER = {"authorization": f"Bearer {SECRET}"}
#: Path -> status for an operator inside of the networks.
RESTRICTED = {"/admin/": 200, "/admin/api/v1/live": 200, "/admin/login": 200, "/metrics": 200, "/api/status": 200}
OPEN = {"/healthz": 200, "/readyz": 503, "/": 200, "/v1/models": 401}
NETWORKS = "192.0.2.0/24, 2001:db8::/32, 127.0.0.1"


@pytest.fixture
def start_client(redis: Redis, redis_url: str) -> Iterator[Callable[..., FlaskClient]]:
    """Makes a client of an app with these variables set."""
    AdminTokens(redis).ensure_first(SECRET)
    apps = []

    def start(**environ: str) -> FlaskClient:
        apps.append(create_app(load_settings({"REDIS_URL": redis_url, **environ})))
        return apps[-1].test_client()

    yield start
    for app in apps:
        app.extensions[EXTENSION].redis.connection_pool.disconnect()
        app.redis_conn.connection_pool.disconnect()  # type: ignore[attr-defined]


def get_status(client: FlaskClient, peer: str, path: str = "/metrics", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    options: dict[str, Any] = {"environ_base": {"REMOTE_ADDR": peer}, "headers": {**BEARER, **named}}
    return client.get(path, **options).status_code


def test_operators_pages_answer_only_inside_of_the_networks(start_client: Callable[..., FlaskClient]):
    client = start_client(FARM_ADMIN_NETWORKS=NETWORKS)
    for path, status in RESTRICTED.items():
        assert get_status(client, "192.0.2.7", path) == status, path
        assert get_status(client, "198.51.100.7", path) == 403, path
        assert get_status(start_client(), "198.51.100.7", path) == status, path
    for path, status in OPEN.items():
        assert get_status(client, "198.51.100.7", path) == status, path


def test_refusal_names_the_address_before_any_token_is_compared(start_client: Callable[..., FlaskClient]):
    client = start_client(FARM_ADMIN_NETWORKS=NETWORKS)
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        for path in ("/admin/login", "/admin/api/v1/keys", "/metrics"):
            refused = client.open(
                path,
                method=method,
                data={"token": SECRET},
                headers={"authorization": "Bearer wrong"},
                environ_base={"REMOTE_ADDR": "198.51.100.7"},
            )
            assert (refused.status_code, refused.json["error"]["code"]) == (403, "ip_not_authorized")
            assert "198.51.100.7" in refused.json["error"]["message"]
            assert refused.headers["x-request-id"]
            assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("192.0.2.255", 200),
        ("192.0.3.0", 403),
        ("127.0.0.1", 200),
        ("127.0.0.2", 403),
        ("::ffff:192.0.2.1", 200),
        ("2001:db8:1::1", 200),
        ("2001:db9::1", 403),
        ("::1", 403),
        # The peer at a unix socket has no address.
        ("", 403),
    ],
)
def test_networks_are_ipv4_and_ipv6(start_client: Callable[..., FlaskClient], peer: str, status: int):
    assert get_status(start_client(FARM_ADMIN_NETWORKS=NETWORKS), peer) == status


def test_address_behind_a_trusted_proxy_is_the_callers(start_client: Callable[..., FlaskClient]):
    client = start_client(FARM_ADMIN_NETWORKS=NETWORKS, FARM_TRUSTED_PROXIES="10.0.0.0/8")
    assert get_status(client, "10.0.0.1", x_forwarded_for="192.0.2.7") == 200
    assert get_status(client, "10.0.0.1", x_forwarded_for="198.51.100.7") == 403
    assert get_status(client, "10.0.0.1", x_forwarded_for="192.0.2.7, 198.51.100.7, 10.0.0.2") == 403
    assert get_status(client, "10.0.0.1", x_forwarded_for="198.51.100.7, 192.0.2.7, 10.0.0.2") == 200
    assert get_status(client, "10.0.0.1") == 403
    assert get_status(client, "198.51.100.7", x_forwarded_for="192.0.2.7") == 403


def test_undeclared_proxy_does_not_open_its_own_address_to_its_callers(start_client: Callable[..., FlaskClient]):
    client = start_client(FARM_ADMIN_NETWORKS=NETWORKS)
    assert get_status(client, "127.0.0.1", x_forwarded_for="127.0.0.1, 198.51.100.7") == 403
    assert get_status(client, "127.0.0.1", x_forwarded_for="198.51.100.7, 192.0.2.7") == 200
    assert get_status(client, "127.0.0.1", x_forwarded_for="nonsense") == 403


def test_relay_serves_addresses_outside_of_the_networks(redis: Redis, redis_url: str):
    front = FrontHarness(redis, redis_url, admin_networks=("192.0.2.0/24",))
    try:
        reply = front.app.test_client().post(
            "/v1/chat/completions",
            json={"model": "m", "messages": []},
            headers={"authorization": f"Bearer {front.secret}"},
            environ_base={"REMOTE_ADDR": "198.51.100.7"},
        )
        assert (reply.status_code, reply.json["error"]["code"]) == (503, "no_credentials")
    finally:
        front.close()
