"""Wrong admin tokens are delayed, and ban their network; while it is banned nothing is compared."""

from collections.abc import Callable
from types import SimpleNamespace

import gevent
import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys import admin_login
from shared.api_keys.admin_tokens import AdminTokens

API = "/admin/api/v1/live"
ADDRESS = "192.0.2.1"


@pytest.fixture
def secret(redis: Redis) -> str:
    """The right token."""
    return AdminTokens(redis).create("console", "admin")[0]


def send_form(client: FlaskClient, token: str, address: str = ADDRESS) -> int:
    """Status of a login by the form."""
    return client.post("/admin/login", data={"token": token}, environ_base={"REMOTE_ADDR": address}).status_code


def send_bearer(client: FlaskClient, token: str, address: str = ADDRESS) -> int:
    """Status of a call of the admin API."""
    headers = {"authorization": f"Bearer {token}"}
    return client.get(API, headers=headers, environ_base={"REMOTE_ADDR": address}).status_code


@pytest.mark.parametrize("send", [send_form, send_bearer])
def test_ten_wrong_tokens_ban_the_network_for_the_right_one_too(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None, send: Callable[..., int]
):
    assert [send(client, "wrong") for _ in range(12)] == [401] * 10 + [429] * 2
    assert (send_form(client, secret), send_bearer(client, secret)) == (429, 429)
    banned = client.get(API, headers={"authorization": "Bearer x"}, environ_base={"REMOTE_ADDR": ADDRESS})
    assert banned.json["error"]["code"] == "too_many_logins"
    assert 1 <= int(banned.headers["retry-after"]) <= admin_login.BAN_SECONDS
    assert send_bearer(client, secret, "192.0.2.2") == 200
    redis.expire(keys.failed_logins(ADDRESS), 0)
    assert send_bearer(client, secret) == 200


def test_requests_while_banned_neither_compare_nor_prolong_the_ban(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None
):
    for _ in range(10):
        send_form(client, "wrong")
    redis.pexpire(keys.failed_logins(ADDRESS), 60_000)
    send_form(client, "wrong")
    send_bearer(client, secret)
    assert redis.get(keys.failed_logins(ADDRESS)) == b"10"
    assert redis.pttl(keys.failed_logins(ADDRESS)) <= 60_000
    assert redis.zcard(keys.LOGIN_NETWORKS) == 0


def test_parallel_guesses_on_a_slow_redis_get_no_more_tries(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None
):
    redis.execute_command("CLIENT", "PAUSE", "300")
    guesses = [gevent.spawn(send_bearer, client.application.test_client(), "wrong") for _ in range(30)]
    gevent.joinall(guesses, timeout=30)
    assert sorted(guess.value for guess in guesses) == [401] * 10 + [429] * 20


def test_ipv6_addresses_of_one_subscriber_are_one_network(client: FlaskClient, secret: str, without_delay: None):
    for host in range(10):
        assert send_bearer(client, "wrong", f"2001:db8:1:2::{host:x}") == 401
    assert send_bearer(client, secret, "2001:db8:1:2:ffff::1") == 429
    assert send_bearer(client, secret, "2001:db8:1:3::1") == 200


def test_guesses_of_many_networks_share_one_budget_that_spares_known_operators(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(admin_login, "MAX_WRONG_TOKENS_IN_ALL", 5)
    assert send_bearer(client, secret, "198.51.100.1") == 200
    operator = client.application.test_client()
    assert send_form(operator, secret, "198.51.100.2") == 302
    redis.zrem(keys.LOGIN_NETWORKS, "198.51.100.2")
    assert [send_form(client, "wrong", f"203.0.113.{i}") for i in range(8)] == [401] * 5 + [429] * 3
    assert len(redis.keys("farm:logins:*")) == 5
    assert send_bearer(client, secret, "203.0.113.99") == 429
    assert send_bearer(client, secret, "198.51.100.1") == 200
    assert operator.get(API, environ_base={"REMOTE_ADDR": "198.51.100.2"}).status_code == 200
    assert redis.pttl(keys.FAILED_LOGINS_IN_ALL) > 0
    redis.delete(keys.FAILED_LOGINS_IN_ALL)
    assert send_bearer(client, secret, "203.0.113.99") == 200


def test_known_networks_are_bounded(redis: Redis, client: FlaskClient, secret: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_login, "MAX_KNOWN_NETWORKS", 3)
    for host in range(5):
        send_bearer(client, secret, f"198.51.100.{host}")
    assert redis.zrange(keys.LOGIN_NETWORKS, 0, -1) == [b"198.51.100.2", b"198.51.100.3", b"198.51.100.4"]


def test_each_wrong_token_is_delayed_longer(client: FlaskClient, monkeypatch: pytest.MonkeyPatch):
    delays: list[float] = []
    # Only there: other greenlets sleep, too.
    monkeypatch.setattr("web.admin.access.gate.gevent", SimpleNamespace(sleep=delays.append))
    for _ in range(12):
        send_form(client, "wrong")
    assert delays == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0, 4.0]


def test_banned_address_behind_a_trusted_proxy_is_the_callers(
    start_app: Callable[..., Flask], secret: str, without_delay: None
):
    client = start_app(trusted_proxies=("10.0.0.0/8",)).test_client()

    def send(token: str, caller: str) -> int:
        headers = {"authorization": f"Bearer {token}", "x-forwarded-for": caller}
        return client.get(API, headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.1"}).status_code

    assert [send("wrong", ADDRESS) for _ in range(11)][-1] == 429
    assert (send(secret, ADDRESS), send(secret, "192.0.2.2")) == (429, 200)
