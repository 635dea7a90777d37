"""The farm's own pages have one spelling and no CORS headers; callers' paths have both."""

from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared.settings.schema import Settings
from web.app import create_app
from web.services import EXTENSION

OWN_PAGES = ["/admin/login", "/admin/api/v1/live", "/metrics", "/api/status", "/readyz", "/healthz"]
PREFLIGHT = {
    "origin": "https://evil.example",
    "access-control-request-method": "GET",
    "access-control-request-private-network": "true",
}


@pytest.fixture
def client(redis: Redis, redis_url: str) -> Iterator[FlaskClient]:
    app: Flask = create_app(Settings(redis_url=redis_url))
    yield app.test_client()
    app.extensions[EXTENSION].redis.connection_pool.disconnect()


@pytest.mark.parametrize("path", OWN_PAGES)
def test_own_pages_have_no_cors_headers(client: FlaskClient, path: str):
    for response in (
        client.get(path, headers={"origin": "https://evil.example"}),
        client.options(path, headers=PREFLIGHT),
    ):
        assert [name for name, _ in response.headers if name.lower().startswith("access-control-")] == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/models", "/v1/nope", "/v1//models"])
def test_callers_paths_have_cors_headers(client: FlaskClient, path: str):
    assert client.post(path).headers["access-control-allow-origin"] == "*"
    preflight = client.options(path, headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
    assert preflight.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "responses", "embeddings", "audio/speech"])
@pytest.mark.parametrize("prefix", ["/v1/", "/", "/v1//"])
def test_no_spelling_of_an_endpoint_is_a_redirect(client: FlaskClient, prefix: str, endpoint: str):
    response = client.post(f"http://localhost{prefix}{endpoint}", json={})
    assert (response.status_code, response.json["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", OWN_PAGES)
def test_own_pages_have_one_spelling(client: FlaskClient, path: str):
    first, rest = path[1], path[2:]
    for spelled in (f"/{path}", f"//{path}", f"/%{ord(first):02x}{rest}", f"/v1/..{path}", path.upper()):
        response = client.get(environ_overrides={"PATH_INFO": unquote(spelled), "RAW_URI": spelled})
        assert response.status_code == 404, spelled
        assert response.json["error"]["code"] == "unknown_url"
    assert client.get(path).status_code in (200, 401, 503)
    assert path.count("/") == 1 or client.get(path[0] + path[1:].replace("/", "//", 1)).status_code == 404


def test_encoded_characters_and_queries_behind_the_first_segment_are_taken(client: FlaskClient):
    assert client.get("/admin/logi%6e").status_code == 200
    assert client.get("/healthz?x=%2f").status_code == 200
    assert client.get("/healthz", environ_overrides={"RAW_URI": "http://farm.example/healthz?x"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/openai/v1", "//"])
def test_base_url_says_what_this_is_and_where_the_endpoints_are(client: FlaskClient, path: str):
    response = client.get(environ_overrides={"PATH_INFO": path, "RAW_URI": path})
    assert (response.status_code, response.json["base_url"]) == (200, "/v1")
    assert {"GET /v1/models", "POST /v1/chat/completions"} <= set(response.json["endpoints"])
    assert response.headers["access-control-allow-origin"] == "*"
    assert client.head(environ_overrides={"PATH_INFO": path, "RAW_URI": path}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/responses/resp_1"),
        ("POST", "/v1/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages"),
        ("POST", "/openai/v1/conversations"),
    ],
)
def test_what_is_not_stored_is_a_404_that_says_so(client: FlaskClient, method: str, path: str):
    response = client.open(path, method=method)
    assert (response.status_code, response.json["error"]["code"]) == (404, "not_stored")
    assert "typo" not in response.json["error"]["message"]
