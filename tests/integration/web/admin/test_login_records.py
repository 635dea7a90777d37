"""Logins, refusals, bans, logouts and changes are in the audit log, bounded and without secrets."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.api_keys import admin_login
from shared.api_keys.admin_tokens import AdminTokens
from shared.observability.audit_log import MAX_DETAILS_LENGTH, AuditEntry, AuditLog, store_configured_token
from shared.observability.counters import read_counters
from tests.redis_dump import dump_redis
from web.services import EXTENSION

OURS = {"origin": "http://localhost"}
WRONG = "admin-wrong-but-secret-all-the-same"


@pytest.fixture
def secret(redis: Redis) -> str:
    """The token of the operator."""
    AdminTokens(redis).ensure_first("a configured admin token")
    return "a configured admin token"


def list_entries(redis: Redis) -> list[AuditEntry]:
    """Oldest first."""
    return list(AuditLog(redis).read_newest_first())[::-1]


def describe(redis: Redis) -> list[tuple[str, str]]:
    return [(entry.who, entry.action) for entry in list_entries(redis)]


def send_bearer(client: FlaskClient, token: str, address: str = "192.0.2.1") -> None:
    headers = {"authorization": f"Bearer {token}"}
    client.get("/admin/api/v1/live", headers=headers, environ_base={"REMOTE_ADDR": address})


def test_login_logout_and_the_end_of_sessions_are_recorded(redis: Redis, client: FlaskClient, secret: str):
    client.post("/admin/login", data={"token": secret})
    client.post("/admin/logout")
    client.post("/admin/login", data={"token": secret})
    (session,) = client.get("/admin/api/v1/sessions").json["data"]
    client.delete(f"/admin/api/v1/sessions/{session['id']}", headers=OURS)
    client.post("/admin/login", data={"token": secret})
    client.delete("/admin/api/v1/sessions", headers=OURS)
    actions = ["login", "logout", "login", "session.end", "login", "session.end_all"]
    assert describe(redis) == [("token first", action) for action in actions]
    assert list_entries(redis)[0].details == {"address": "127.0.0.1", "role": "admin"}
    assert list_entries(redis)[2].target == session["id"]


def test_another_configured_token_is_recorded_once(redis: Redis):
    for configured in ("the first configured token", "the first configured token", "another one", "another one"):
        store_configured_token(redis, configured)
    (entry,) = list_entries(redis)
    assert (entry.who, entry.action, entry.target) == ("settings", "token.replace", "first")
    assert entry.details == {"setting": "FARM_ADMIN_TOKEN"}


def test_changes_by_the_dashboard_are_recorded(redis: Redis, client: FlaskClient, secret: str):
    bearer = {"authorization": f"Bearer {secret}"}
    client.post("/admin/rq/queue/chat:default/queued/empty", headers=bearer)
    client.post("/admin/rq/job/none/delete", headers=bearer)
    client.get("/admin/rq/requeue/chat:default", headers=bearer)
    entries = [(entry.action, entry.target) for entry in list_entries(redis)]
    assert entries == [("rq.empty_queue", "chat:default"), ("rq.delete_job", "none")]


def test_first_wrong_token_and_the_ban_are_recorded_without_the_token(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None, caplog: pytest.LogCaptureFixture
):
    for _ in range(15):
        send_bearer(client, WRONG)
    client.post("/admin/login", data={"token": WRONG}, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert describe(redis) == [("address 192.0.2.1", "login.refuse"), ("address 192.0.2.1", "login.ban")]
    assert [record.action for record in caplog.records] == ["admin_refused"] * 10
    assert WRONG not in dump_redis(redis) + caplog.text
    services: Any = client.application.extensions[EXTENSION]
    services.flush()
    counts = {labels[0]: n for (name, labels, _), n in read_counters(redis).items() if name == "admin_token_checks"}
    assert counts == {"wrong": 10, "banned": 6}


def test_ban_of_all_unknown_addresses_is_recorded(
    redis: Redis, client: FlaskClient, without_delay: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(admin_login, "MAX_WRONG_TOKENS_IN_ALL", 3)
    for host in range(4):
        send_bearer(client, WRONG, f"203.0.113.{host}")
    last = list_entries(redis)[-1]
    assert (last.who, last.action, last.target) == ("address 203.0.113.2", "login.ban", "all unknown addresses")


def test_refusals_do_not_push_changes_out_of_the_audit_log(
    redis: Redis, client: FlaskClient, secret: str, without_delay: None
):
    for host in range(40):
        send_bearer(client, WRONG, f"203.0.113.{host}")
    viewer, _ = AdminTokens(redis).create("viewer", "viewer")
    for _ in range(10):
        client.post("/admin/api/v1/keys", json={}, headers={"authorization": f"Bearer {viewer}"})
    assert len(list_entries(redis)) == 20
    assert redis.ttl(keys.LOGGED_REFUSALS) > 0
    redis.delete(keys.LOGGED_REFUSALS)
    client.post("/admin/api/v1/keys", json={}, headers={"authorization": f"Bearer {viewer}"})
    refused = list_entries(redis)[-1]
    assert (refused.action, refused.details["code"]) == ("request.refuse", "forbidden")
    client.post("/admin/login", data={"token": secret})
    client.post("/admin/api/v1/keys", json={}, headers={"origin": "https://evil.example"})
    foreign = list_entries(redis)[-1]
    assert (foreign.target, foreign.details["code"]) == ("token first", "cross_origin")


def test_refused_logins_of_other_origins_do_not_flood_the_log(
    redis: Redis, client: FlaskClient, caplog: pytest.LogCaptureFixture
):
    for _ in range(30):
        client.post("/admin/login", data={"token": WRONG}, headers={"origin": "https://evil.example"})
    assert len(caplog.records) == len(list_entries(redis)) == 20


def test_details_of_an_entry_are_bounded(redis: Redis):
    AuditLog(redis).record("command line", "key.update", "k" * 5000, {"models": ["m" * MAX_DETAILS_LENGTH]})
    (entry,) = list_entries(redis)
    assert entry.details["fields"] == ["models"]
    assert len(entry.target) == 200
