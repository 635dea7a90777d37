"""Token requests follow RFC 6749 section 6, and clients authenticate as section 2.3.1 says."""

import base64

import pytest

from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint import authenticate, build_token_request, list_ways, own_headers


def test_form_request_follows_rfc_6749():
    pool = PoolSettings(client_id="app", scope="chat")
    assert authenticate(build_token_request(pool, "rt"), pool, "body") == {
        "data": {"grant_type": "refresh_token", "refresh_token": "rt", "client_id": "app", "scope": "chat"}
    }


def test_json_and_bearer_requests_are_the_alternatives():
    pool = PoolSettings(token_request="json", client_id="app", client_secret="hush")
    fields = authenticate(build_token_request(pool, "rt"), pool, "body")["json"]
    assert (fields["refresh_token"], fields["client_secret"]) == ("rt", "hush")
    pool = PoolSettings(token_request="bearer", client_id="app", client_secret="hush")
    assert authenticate(build_token_request(pool, "rt"), pool, "body") == {
        "data": b"",
        "headers": {"authorization": "Bearer rt"},
    }


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def test_basic_authentication_is_form_encoded_and_leaves_the_body_without_the_client():
    pool = PoolSettings(client_id="app", client_secret="a:b/c d")
    request = build_token_request(pool, "rt")
    assert authenticate(request, pool, "basic")["headers"] == basic("app:a%3Ab%2Fc+d")
    assert authenticate(request, pool, "plain")["headers"] == basic("app:a:b/c d")
    assert authenticate(request, pool, "basic")["data"] == {"grant_type": "refresh_token", "refresh_token": "rt"}


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        ({}, ["body"]),
        ({"client_id": "app"}, ["body"]),
        ({"client_id": "app", "client_secret": "hush"}, ["body", "basic"]),
        ({"client_id": "app", "client_secret": "a/b"}, ["body", "basic", "plain"]),
        ({"client_id": "app", "client_secret": "a/b", "token_auth": "basic"}, ["basic", "plain"]),
        ({"client_id": "app", "client_secret": "hush", "token_auth": "body"}, ["body"]),
        ({"client_id": "app", "client_secret": "hush", "token_request": "bearer"}, ["body"]),
    ],
)
def test_ways_of_authentication_are_those_that_the_settings_allow(settings: dict[str, str], ways: list[str]):
    assert list_ways(PoolSettings(**settings)) == ways


def test_operator_names_the_farm_and_adds_headers_to_token_requests_but_shows_them_no_other_header():
    headers = {"User-Agent": "acme/1", "X-Upstream-Key": "hush"}
    pool = PoolSettings(headers=headers)
    assert own_headers(pool) == {"user-agent": "acme/1"}
    pool = PoolSettings(headers=headers, token_headers={"User-Agent": "acme-login/2", "X-Tenant": "7"})
    assert own_headers(pool) == {"user-agent": "acme-login/2", "x-tenant": "7"}
