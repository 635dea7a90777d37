"""Alerts on the console's page of the system and in the admin API: what is wrong, who is told, and tests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask.testing import FlaskClient
from redis import Redis

from shared import keys
from shared.alerts.notices import Alert, Notice
from shared.alerts.receivers import Receiver
from shared.observability.audit_log import AuditLog
from shared.protocol.credential_operations import TEST_ALERTS, CredentialOperation, CredentialOperations
from tests.console_content import HOSTILE

RESULT = {"ok": False, "error": "", "results": [{"receiver": "json://h/…", "error": HOSTILE}]}


def raise_alert(redis: Redis) -> None:
    values = {"name": HOSTILE, "reason": "invalid_grant"}
    alert = Alert("account_dead", "default", "c1", "account %(name)s is dead: %(reason)s", "", 5.0, values=values)
    redis.set(keys.ALERT_LEASE, "watching")
    redis.hset(keys.ALERTS, alert.id, alert.encode())
    redis.hset(keys.ALERTS, "of a newer version", "{")
    receiver = Receiver("json://h/…", failed_since=7.0, retry_at=2e9, error=f"refused {HOSTILE}", failures=2)
    redis.hset(keys.ALERT_RECEIVERS, "r1", receiver.encode())
    redis.xadd(keys.ALERT_NOTICES, {"n": Notice.of("raised", alert, 2e9).encode()})


@contextmanager
def run_worker_process(redis: Redis, name: str) -> Iterator[list[CredentialOperation]]:
    """Takes one operation that this worker process is asked for; yields what it took."""
    taken: list[CredentialOperation] = []

    def take() -> None:
        if popped := redis.blpop([keys.operations(name)], timeout=9):
            taken.append(CredentialOperation.decode(popped[1]))
            CredentialOperations(redis).respond(taken[0], RESULT)

    thread = threading.Thread(target=take)
    thread.start()
    yield taken
    thread.join()


def test_alerts_and_receivers_are_shown(admin: FlaskClient, redis: Redis):
    raise_alert(redis)
    shown = admin.get("/admin/api/v1/alerts").json
    assert shown is not None and shown["is_watched"] is True
    (alert,) = shown["alerts"]
    assert (alert["rule"], alert["pool"], alert["subject"], alert["since"]) == ("account_dead", "default", "c1", 5.0)
    (receiver,) = shown["receivers"]
    assert (receiver["name"], receiver["waiting"], receiver["failed_since"]) == ("json://h/…", 1, 7.0)
    assert alert["text"] == f"account {HOSTILE} is dead: invalid_grant"
    page = admin.get("/admin/system").text
    assert "json://h/…" in page and "is dead: invalid_grant" in page and "<script>alert" not in page
    assert "已失效：invalid_grant" in admin.get("/admin/system?lang=zh").text


def test_page_says_how_to_be_told(admin: FlaskClient):
    assert "FARM_ALERT_URLS" in admin.get("/admin/system").text


def test_test_is_sent_by_the_process_that_watches(admin: FlaskClient, redis: Redis, log_in: Callable[..., Any]):
    raise_alert(redis)
    redis.zadd(keys.PROCESSES, {"another": 1})
    with run_worker_process(redis, "watching") as taken:
        page = admin.post("/admin/system/alerts/test").text
    assert [operation.kind for operation in taken] == [TEST_ALERTS]
    assert "json://h/…" in page and "<script>alert" not in page
    assert "alert.test" in {entry.action for entry in AuditLog(redis).read_newest_first()}
    assert log_in("viewer").post("/admin/system/alerts/test").status_code == 403
    assert "alerts/test" not in log_in("viewer").get("/admin/system").text


def test_test_without_a_worker_process_says_so(admin: FlaskClient):
    response = admin.post("/admin/api/v1/alerts/test", json={})
    assert (response.status_code, response.json["error"]["code"]) == (503, "no_worker")  # type: ignore[index]
