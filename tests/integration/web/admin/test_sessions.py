"""Login sessions are kept on the server: listed, ended, and over when idle, old, or without their token."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys import admin_sessions
from shared.api_keys.admin_sessions import AdminSessions
from shared.api_keys.admin_tokens import AdminTokens
from tests.redis_dump import dump_redis

API = "/admin/api/v1"
CONFIGURED = "a configured admin token"


def log_in(app: Flask, secret: str = CONFIGURED) -> FlaskClient:
    """A browser that has logged in."""
    browser = app.test_client()
    assert browser.post("/admin/login", data={"token": secret}).status_code == 302
    return browser


def copy_cookie(browser: FlaskClient) -> FlaskClient:
    """Another browser that has got hold of the cookie."""
    thief = browser.application.test_client()
    cookie = browser.get_cookie("farm_admin", path="/admin")
    assert cookie is not None
    thief.set_cookie("farm_admin", cookie.value, path="/admin")
    return thief


def is_open(browser: FlaskClient) -> bool:
    status = browser.get(f"{API}/live").status_code
    assert status in (200, 401)
    return status == 200


def list_sessions(browser: FlaskClient) -> list[dict[str, Any]]:
    response = browser.get(f"{API}/sessions")
    assert response.json is not None
    return list(response.json["data"])


@pytest.fixture
def app(redis: Redis, start_app: Callable[..., Flask]) -> Flask:
    AdminTokens(redis).ensure_first(CONFIGURED)
    return start_app()


def test_copied_cookie_is_worthless_after_logout(app: Flask):
    browser = log_in(app)
    thief = copy_cookie(browser)
    assert is_open(thief)
    assert browser.post("/admin/logout").status_code == 302
    assert browser.get_cookie("farm_admin", path="/admin") is None
    assert not is_open(thief)


def test_changed_admin_token_ends_the_sessions_of_the_one_before(redis: Redis, app: Flask):
    browser = log_in(app)
    AdminTokens(redis).ensure_first(CONFIGURED)
    assert is_open(browser)
    AdminTokens(redis).ensure_first("another configured token")
    assert AdminSessions(redis).list() == []
    assert not is_open(browser)
    AdminTokens(redis).ensure_first(CONFIGURED)
    assert not is_open(browser)


def test_session_of_a_token_that_was_deleted_in_the_meantime_is_refused(redis: Redis, app: Flask):
    browser = log_in(app)
    redis.delete(keys.ADMIN_TOKENS)
    assert not is_open(browser)
    assert redis.keys("farm:admin-session*") == []


def test_revoked_token_ends_its_sessions_and_no_others(redis: Redis, app: Flask):
    secret, token = AdminTokens(redis).create("laptop", "viewer")
    others, own = log_in(app), log_in(app, secret)
    AdminTokens(redis).revoke(token.id)
    assert [session.token_id for session in AdminSessions(redis).list()] == ["first"]
    assert (is_open(own), is_open(others)) == (False, True)


def test_session_ends_when_idle_and_when_old(redis: Redis, app: Flask, monkeypatch: pytest.MonkeyPatch):
    browser = log_in(app)
    (key,) = redis.keys("farm:admin-session:*")
    now = admin_sessions.time.time()

    def use_after(seconds: float) -> float:
        """Seconds after which the session ends, if nothing more comes: a few less on a slow machine."""
        monkeypatch.setattr("shared.api_keys.admin_sessions.time.time", lambda: now + seconds)
        assert is_open(browser)
        return float(redis.pttl(key) / 1000)

    assert 3500 < redis.ttl(key) <= 3600
    redis.expire(key, 1000)
    assert 900 < use_after(10) <= 1000
    assert 3500 < use_after(60) <= 3600
    assert 50 < use_after(12 * 3600 - 100) <= 100
    monkeypatch.setattr("shared.api_keys.admin_sessions.time.time", lambda: now + 12 * 3600 + 1)
    redis.persist(key)
    assert not is_open(browser)
    assert list_sessions_in(redis) == []


def list_sessions_in(redis: Redis) -> list[bytes]:
    return list(redis.zrange(keys.ADMIN_SESSIONS, 0, -1)) + list(redis.keys("farm:admin-session:*"))


def test_expired_session_leaves_the_list(redis: Redis, app: Flask):
    browser = log_in(app)
    redis.delete(*redis.keys("farm:admin-session:*"))
    assert not is_open(browser)
    assert AdminSessions(redis).list() == []
    assert list_sessions_in(redis) == []


def test_sessions_are_listed_and_ended_one_by_one_and_all(redis: Redis, app: Flask):
    first, second, third = log_in(app), log_in(app), log_in(app)
    listed = list_sessions(first)
    assert [session["current"] for session in listed].count(True) == 1
    assert {(s["token_id"], s["role"], s["address"]) for s in listed} == {("first", "admin", "127.0.0.1")}
    assert "digest" not in repr(listed)
    (own,) = [session["id"] for session in list_sessions(second) if session["current"]]
    bearer = {"authorization": f"Bearer {CONFIGURED}"}
    assert app.test_client().delete(f"{API}/sessions/{own}", headers=bearer).status_code == 204
    assert app.test_client().delete(f"{API}/sessions/{own}", headers=bearer).status_code == 404
    assert [is_open(browser) for browser in (first, second, third)] == [True, False, True]
    assert app.test_client().delete(f"{API}/sessions", headers=bearer).status_code == 204
    assert [is_open(browser) for browser in (first, third)] == [False, False]


def test_login_gives_a_new_session_and_ends_the_browsers_old_one(app: Flask):
    browser = log_in(app)
    thief = copy_cookie(browser)
    assert browser.post("/admin/login", data={"token": CONFIGURED}).status_code == 302
    assert (is_open(browser), is_open(thief)) == (True, False)


def test_number_of_sessions_is_bounded(redis: Redis, app: Flask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_sessions, "MAX_SESSIONS", 2)
    browsers = [log_in(app) for _ in range(3)]
    assert [is_open(browser) for browser in browsers] == [False, True, True]


def test_redis_holds_neither_a_sessions_secret_nor_a_key_to_forge_one(redis: Redis, app: Flask):
    redis.set("farm:session-secret", "left by an earlier version")
    AdminTokens(redis).ensure_first(CONFIGURED)
    cookie = log_in(app).get_cookie("farm_admin", path="/admin")
    assert cookie is not None
    assert re.fullmatch(r"[\w-]{43}", cookie.value)
    assert cookie.value not in dump_redis(redis)
    assert not redis.exists("farm:session-secret")


def test_cookie_is_host_only_and_secure_behind_tls_and_a_plain_one_does_not_count(
    start_app: Callable[..., Flask], redis: Redis
):
    AdminTokens(redis).ensure_first(CONFIGURED)
    app = start_app(trusted_proxies=("10.0.0.0/8",))
    proxied = {"environ_base": {"REMOTE_ADDR": "10.0.0.1"}, "headers": {"x-forwarded-proto": "https"}}
    untrusted = {**proxied, "environ_base": {"REMOTE_ADDR": "192.0.2.1"}}

    def read_cookie(options: dict[str, Any]) -> str:
        response = app.test_client().post("/admin/login", data={"token": CONFIGURED}, **options)
        return response.headers["set-cookie"]

    secure, plain = read_cookie(proxied), read_cookie(untrusted)
    assert secure.startswith("__Host-farm_admin=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=43200"} <= set(secure.split("; "))
    assert plain.startswith("farm_admin=")
    assert {"HttpOnly", "Path=/admin", "SameSite=Strict"} <= set(plain.split("; "))
    assert "Secure" not in plain
    secret = secure.partition("=")[2].partition(";")[0]

    def read_status(cookie: str) -> int:
        options = {**proxied, "headers": {**proxied["headers"], "cookie": cookie}}
        return app.test_client(use_cookies=False).get(f"{API}/live", **options).status_code

    assert (read_status(f"__Host-farm_admin={secret}"), read_status(f"farm_admin={secret}")) == (200, 401)
    direct = app.test_client().post("/admin/login", data={"token": CONFIGURED}, base_url="https://farm.example")
    assert direct.headers["set-cookie"].startswith("__Host-farm_admin=")
