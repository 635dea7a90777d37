"""`./farm alerts` lists alerts and receivers, and sends a test."""

import json
import threading

import pytest
from redis import Redis

from shared import keys
from shared.alerts.notices import Alert
from shared.alerts.receivers import Receiver
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from tests.integration.launcher.conftest import Run


def test_alerts_are_listed(run: Run, redis: Redis):
    assert "set FARM_ALERT_URLS" in run("alerts", "list").stdout
    alert = Alert("upstream_down", "default", "", "the upstream is down", "", since=5.0)
    redis.set(keys.ALERT_LEASE, "watching")
    redis.hset(keys.ALERTS, alert.id, alert.encode())
    redis.hset(keys.ALERT_RECEIVERS, "r1", Receiver("json://h/…", error="refused").encode())
    shown = run("alerts", "list").stdout
    assert "the upstream is down" in shown and "json://h/…" in shown and "set FARM_ALERT_URLS" not in shown
    listed = json.loads(run("alerts", "list", "--json").stdout)
    assert listed["alerts"][0]["rule"] == "upstream_down" and listed["receivers"][0]["error"] == "refused"


def test_exit_code_of_a_test_says_whether_it_arrived(run: Run, redis: Redis):
    assert "no worker process" in run("alerts", "test").stderr
    redis.zadd(keys.PROCESSES, {"p1": 1})
    for error, exit_code in (("", 0), ("refused", 1)):

        def respond(error: str = error) -> None:
            operation = CredentialOperation.decode(redis.blpop([keys.operations("p1")], timeout=9)[1])
            result = {"ok": not error, "error": "", "results": [{"receiver": "json://h/…", "error": error}]}
            CredentialOperations(redis).respond(operation, result)

        thread = threading.Thread(target=respond)
        thread.start()
        result = run("alerts", "test")
        thread.join()
        assert (result.exit_code, result.stdout) == (exit_code, f"json://h/…: {error or 'sent'}\n")


def test_check_of_the_settings_names_a_service_that_does_not_exist(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FARM_ALERT_URLS", "nosuchservice://hunter2secret json://127.0.0.1/hook")
    result = run("config", "check")
    assert "FARM_ALERT_URLS: apprise knows no service nosuchservice://…" in result.stderr
    assert "json://" not in result.stderr and "hunter2" not in result.output
    assert "alert_urls = set" in result.stdout
