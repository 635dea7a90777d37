"""Operators see the queue and what runs, and cancel requests, whose callers are told."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest
from redis import Redis
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.observability.audit_log import AuditLog
from shared.observability.request_log import LogEntry, LogFilter, RequestLog
from tests.builders import build_log_entry
from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.waiting import eventually

PREFIX = "/admin/api/v1"


class Front(FrontHarness):
    """A front whose admin API is called with an admin token."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        super().__init__(redis, redis_url)
        secret, _ = AdminTokens(redis).create("tests", "admin")
        self._headers = {"authorization": f"Bearer {secret}"}

    def admin(self, method: str, path: str, body: Any = None) -> TestResponse:
        return self.app.test_client().open(PREFIX + path, method=method, json=body, headers=self._headers)

    def data(self, path: str) -> list[dict[str, Any]]:
        response = self.admin("GET", path)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json["data"]  # type: ignore[index]
        return found

    def spawn_chat(self, **fields: Any) -> gevent.Greenlet:
        return gevent.spawn(self.call, self.build_environ(**fields))

    def cancel(self, request_id: str) -> tuple[int, Any]:
        response = self.admin("POST", f"/requests/{request_id}/cancel", {})
        return response.status_code, response.json


@pytest.fixture
def front(redis: Redis, redis_url: str) -> Iterator[Front]:
    with closing(Front(redis, redis_url)) as front:
        redis.hset(keys.credentials("default"), "c9", "active")
        yield front


def log_entries(redis: Redis) -> list[LogEntry]:
    return [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter())]


def test_waiting_request_is_shown_with_its_key_and_cancelled(front: Front):
    chat = front.spawn_chat(model="gpt-4")
    (waiting,) = eventually(lambda: front.data("/queue")[0]["waiting"])
    (key,) = ApiKeys(front.redis).list()
    assert (waiting["key"], waiting["key_name"], waiting["model"]) == (key.id, "test", "gpt-4")
    assert (waiting["position"], waiting["state"], waiting["endpoint"]) == (1, "queued", "/chat/completions")
    assert front.cancel(waiting["request"]) == (200, {"outcome": "withdrawn"})
    assert json.loads(chat.get(timeout=30))["error"]["code"] == "request_cancelled"
    (entry,) = log_entries(front.redis)
    assert (entry.request, entry.status, entry.code) == (waiting["request"], 410, "request_cancelled")
    assert entry.ahead == ""
    assert front.data("/queue")[0]["waiting"] == []
    assert front.cancel(waiting["request"])[0] == 404


@pytest.mark.parametrize("stream", [True, False])
def test_running_request_is_shown_and_cancelled(
    front: Front, start_harness: Callable[..., WorkerHarness], stream: bool
):
    harness = start_harness(credentials=2, first_byte_timeout=60)
    harness.credentials.set_label("default", harness.credential_id, "first")
    harness.credentials.set_label("default", harness.workers[1].lease.credential_id, "second")
    harness.upstream.pace(delay=0 if stream else 60, chunks=1000, chunk_delay=0.2)
    chat = front.spawn_chat(stream=stream)
    (running,) = eventually(lambda: [r for r in front.data("/running") if r["has_begun"] or not stream])
    labels = {harness.credential_id: "first", harness.workers[1].lease.credential_id: "second"}
    assert (running["credential_name"], running["key_name"]) == (labels[running["credential"]], "test")
    assert front.cancel(running["request"]) == (200, {"outcome": "stopping"})
    assert b'"request_cancelled"' in chat.get(timeout=30)
    eventually(lambda: not any(worker.runner.busy_since for worker in harness.workers))
    (entry,) = log_entries(front.redis)
    assert (entry.request, entry.code) == (running["request"], "request_cancelled")
    assert front.data("/running") == []


def test_pool_is_paused_and_resumed_and_that_is_seen_everywhere(front: Front):
    chat = front.spawn_chat()
    eventually(lambda: front.data("/queue")[0]["waiting"])
    for _ in range(2):
        paused = front.admin("POST", "/pools/default/pause", {}).json
        assert paused is not None
        assert (paused["paused_since"] > 0, paused["paused_by"].startswith("token ")) == (True, True)
    (queue,), (live,) = front.data("/queue"), front.admin("GET", "/live").json["pools"]  # type: ignore[index]
    assert queue["paused_since"] == live["paused_since"] == paused["paused_since"]
    assert (queue["waiting"][0]["eta"], queue["drained_in"]) == (None, None)
    ready = front.app.test_client().get("/readyz").json
    assert ready is not None
    assert "pool default: an operator has paused it" in ready["warnings"]
    assert front.admin("POST", "/pools/default/resume", {}).json == {
        "pool": "default",
        "paused_since": 0.0,
        "paused_by": "",
    }
    assert front.admin("POST", "/pools/nowhere/pause", {}).status_code == 404
    changes = [(entry.action, entry.target) for entry in AuditLog(front.redis).read_newest_first()]
    assert changes[:2] == [("pool.resume", "default"), ("pool.pause", "default")]
    assert front.cancel(front.data("/queue")[0]["waiting"][0]["request"])[0] == 200
    chat.get(timeout=30)


def test_plan_of_a_past_load_is_asked_for(front: Front):
    RequestLog(front.redis).write([build_log_entry(number, pool="default", total_ms=500) for number in range(9)])
    plan = front.admin("GET", "/plan?period=hour&wait=0&percent=100").json
    assert plan is not None
    assert (plan["requests"], plan["pool"], plan["accounts"] <= 9) == (9, "default", True)
    assert plan["outlooks"][-1]["share_in_time"] == 1
    for path, status in (("/plan?since=5", 422), ("/plan?pool=nowhere", 404), ("/plan?percent=0", 400)):
        assert front.admin("GET", path).status_code == status
    assert front.admin("GET", "/plan?since=5&until=9").json["requests"] == 0  # type: ignore[index]


def test_unknown_pools_and_requests_are_not_found(front: Front):
    assert front.admin("GET", "/queue?pool=nowhere").status_code == 404
    assert front.cancel("req_nothing")[0] == 404


def test_tape_has_a_row_for_each_credential(front: Front):
    front.redis.zadd(keys.TAPES, {"p1": 1})
    for letters in ("b", "i"):
        front.redis.xadd(keys.tape("p1"), {"c": letters, "k": "c1"})
    front.redis.hset(keys.credentials("default"), "c1", "active")
    front.redis.hset(keys.credential("c1"), mapping={"pool": "default", "label": "first"})
    path = "/tape?seconds=100"
    rows = eventually(lambda: "i" in (data := front.data(path))[0]["letters"] and data)
    assert [(row["credential"], row["credential_name"], row["state"]) for row in rows] == [
        ("c1", "first", "active"),
        ("c9", "", "active"),
    ]
    assert rows[1]["letters"] == 100 * "-"
    assert front.admin("GET", path).json["legend"]["w"] == "idle_waiting"  # type: ignore[index]


def test_events_are_paginated(front: Front):
    for number in range(3):
        AuditLog(front.redis).record("tests", "key.create", f"k{number}")
    first = front.admin("GET", "/events?limit=2&kind=operator").json
    assert first is not None
    rest = front.data(f"/events?cursor={first['next']}")
    assert [event["target"] for event in (*first["data"], *rest)] == ["k2", "k1", "k0"]


def test_samples_are_intervals(front: Front):
    for second in (1000, 1005):
        totals = {"now": {"default": {"waiting": 3}}, "requests": {"default": {"200": second}}}
        front.redis.xadd(keys.samples(5), {"e": json.dumps(totals)}, id=f"{second}000-0")
    (interval,) = front.data("/samples")
    assert (interval["time"], interval["seconds"], interval["statuses"]) == (1005.0, 5.0, {"200": 5})
    assert front.data("/samples?step=60") == []
    assert front.admin("GET", "/samples?step=7").status_code == 400
