"""`./farm usage`, `requests` and `events`."""

import json

from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.audit_log import AuditLog
from shared.observability.event_log import encode_event
from shared.observability.request_log import LogEntry, RequestLog
from tests.builders import build_log_entry
from tests.integration.launcher.conftest import Run
from workers.process.usage_rollup import UsageRollup


def test_names_are_shown_beside_ids(redis: Redis, run: Run):
    _, key = ApiKeys(redis).create("reader")
    credential_id, _ = Credentials(redis).add("default", "a-token", "first")
    entry = LogEntry("req_1", key.id, "default", "m", "/chat/completions", status=200, credential=credential_id)
    RequestLog(redis).write([entry, LogEntry("req_2", "-", status=429, code="queue_full")])
    UsageRollup(redis, 1000, 7, 31).roll_up()
    table = run("requests").stdout
    assert f"{key.id} reader" in table
    assert f"{credential_id} first" in table
    assert "reader" in run("usage", "--by", "key").stdout
    assert "first" in run("usage", "--by", "credential").stdout
    assert '"key_name": "reader"' in run("requests", "--json").stdout


def test_events_are_listed(redis: Redis, unsealer: Unsealer, run: Run):
    credential_id, _ = Credentials(redis).add("default", "a-token", "first")
    redis.xadd(keys.EVENTS, {"e": encode_event("credential_dead", credential_id=credential_id)})
    assert f"{credential_id} first" in run("events").stdout
    AuditLog(redis).record("command line", "key.create", "k1")
    assert "operator" in run("events").stdout
    assert json.loads(run("events", "--kind", "operator", "--json").stdout)[0]["target"] == "k1"
    assert json.loads(run("events", "--pool", "none", "--json").stdout) == []


def test_accounts_are_planned_for_a_past_load(redis: Redis, run: Run):
    assert "no load: 0 requests of pool default" in run("plan").stdout
    RequestLog(redis).write([build_log_entry(number, pool="default", total_ms=500) for number in range(9)])
    text = run("plan", "--period", "hour", "--wait", "0", "--percent", "100").stdout
    assert "load: 9 requests of pool default" in text
    assert "P100 WAIT" in text
    plan = json.loads(run("plan", "--period", "hour", "--since", "1h", "--until", "0s", "--json").stdout)
    assert (plan["requests"], plan["wish"]["wait"]) == (9, 5.0)
    assert run("plan", "--since", "1h").exit_code == 1
    assert run("plan", "--pool", "nowhere").exit_code == 1
