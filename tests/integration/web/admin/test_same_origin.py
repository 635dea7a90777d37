"""With a session, only the console's own pages change anything; a Bearer token needs no origin."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys

API = "/admin/api/v1"
OURS = {"origin": "http://localhost"}
SECRET = "a configured admin token"
#: Headers of a request from another origin: another site, another port of the same host, a sibling, an opaque one.
FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:9000"},
    {"origin": "http://sub.localhost"},
    {"origin": "null"},
    {"origin": "http://localhost:x"},
    {"referer": "http://evil.example/http://localhost/"},
    {"sec-fetch-site": "same-site", **OURS},
    {"sec-fetch-site": "cross-site", **OURS},
]
#: Headers of a request from the console's own pages, in browsers of all ages.
OWN = [
    OURS,
    {"origin": "http://LOCALHOST:80"},
    {"origin": "https://localhost"},  # a proxy without FARM_TRUSTED_PROXIES terminates TLS
    {"referer": "http://localhost/admin/rq/"},
    {"sec-fetch-site": "same-origin"},
]


@pytest.fixture
def browser(redis: Redis, start_app: Callable[..., Flask]) -> FlaskClient:
    """A browser that has logged in."""
    AdminTokens(redis).ensure_first(SECRET)
    browser = start_app().test_client()
    assert browser.post("/admin/login", data={"token": SECRET}).status_code == 302
    return browser


@pytest.mark.parametrize("headers", [*FOREIGN, {}], ids=str)
def test_unsafe_request_of_a_session_from_elsewhere_is_refused(
    redis: Redis, browser: FlaskClient, headers: dict[str, str]
):
    for method, path in (
        ("POST", f"{API}/keys"),
        ("DELETE", f"{API}/sessions"),
        ("POST", "/admin/rq/queue/chat:default/queued/empty"),
        ("POST", "/admin/rq/requeue/chat:default"),
    ):
        refused = browser.open(path, method=method, json={"name": "stolen"}, headers=headers)
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "cross_origin")
    assert ApiKeys(redis).list() == []
    assert browser.get(f"{API}/live", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_own_pages_may_change_things(browser: FlaskClient, headers: dict[str, str]):
    assert browser.post(f"{API}/keys", json={}, headers=headers).status_code == 201
    emptied = browser.post("/admin/rq/queue/chat:default/queued/empty", headers=headers)
    assert emptied.json == {"status": "OK"}


def test_bearer_token_needs_no_origin(browser: FlaskClient):
    for headers in ({}, FOREIGN[0]):
        bearer = {"authorization": f"Bearer {SECRET}", **headers}
        assert browser.post(f"{API}/keys", data=b"{}", headers=bearer).status_code == 201


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", None])
def test_body_that_a_form_could_send_is_refused_with_a_session(
    redis: Redis, browser: FlaskClient, content_type: str | None
):
    refused = browser.post(f"{API}/keys", data=b'{"name": "="}', content_type=content_type, headers=OURS)
    assert (refused.status_code, refused.json["error"]["code"]) == (415, "unsupported_media_type")
    assert ApiKeys(redis).list() == []


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_pages_can_neither_log_in_nor_out_nor_use_up_the_tries(
    redis: Redis, browser: FlaskClient, headers: dict[str, str]
):
    for path in ("/admin/login", "/admin/logout"):
        refused = browser.post(path, data={"token": "wrong"}, headers=headers)
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "cross_origin")
    assert not redis.exists(keys.failed_logins("127.0.0.1"))
    assert browser.get(f"{API}/live").status_code == 200


def test_link_of_another_site_leads_to_the_login_page(start_app: Callable[..., Flask]):
    browser = start_app().test_client()
    headers = {"sec-fetch-site": "cross-site", "accept": "text/html", "referer": "https://mail.example/"}
    page = browser.get("/admin/rq/", headers=headers, follow_redirects=True)
    assert (page.status_code, page.request.path) == (200, "/admin/login")


def test_origin_is_compared_with_the_host_that_a_trusted_proxy_names(redis: Redis, start_app: Callable[..., Flask]):
    AdminTokens(redis).ensure_first(SECRET)
    app = start_app(trusted_proxies=("10.0.0.0/8",))
    cookie = app.test_client().post("/admin/login", data={"token": SECRET}, base_url="https://h").headers["set-cookie"]

    def read_status(origin: str, proxy: str = "10.0.0.1") -> int:
        headers = {
            "cookie": cookie.partition(";")[0],
            "origin": origin,
            "x-forwarded-proto": "https",
            "x-forwarded-host": "farm.example",
        }
        client = app.test_client(use_cookies=False)
        environ = {"REMOTE_ADDR": proxy, "wsgi.url_scheme": "https"}
        return client.post(f"{API}/keys", json={}, headers=headers, environ_overrides=environ).status_code

    assert read_status("https://farm.example") == 201
    assert read_status("http://farm.example") == 403
    assert read_status("https://farm.example", proxy="192.0.2.1") == 403
    assert read_status("https://localhost", proxy="192.0.2.1") == 201
