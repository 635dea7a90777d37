"""Operations on many credentials go on in the background, and tell their progress."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest
from flask import g
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.audit_log import AuditLog
from tests.integration.web.admin.test_queue import Front
from tests.waiting import eventually
from web.admin.bulk import resource
from web.admin.bulk.progress import (
    MAX_OUTCOME_LENGTH,
    MAX_OUTCOMES,
    OTHER,
    SILENCE_SECONDS,
    TTL_SECONDS,
    ProgressStore,
)

#: Actions that find out by themselves that an account is gone.
GONE_ACTIONS = ("disable", "relabel")


@pytest.fixture
def front(redis: Redis, redis_url: str, unsealer: Unsealer) -> Iterator[Front]:
    with closing(Front(redis, redis_url)) as front:
        Credentials(redis).import_lines("default", [f"token-{number}" for number in range(5)])
        yield front


def begin(front: Front, **body: Any) -> dict[str, Any]:
    response = front.admin("POST", "/bulk", body)
    assert response.status_code == 201, response.text
    begun: dict[str, Any] = response.json  # type: ignore[assignment]
    return begun


def read(front: Front, operation: str) -> dict[str, Any]:
    found: dict[str, Any] = front.admin("GET", f"/bulk/{operation}").json  # type: ignore[assignment]
    return found


def wait(front: Front, operation: str) -> dict[str, Any]:
    return eventually(lambda: (found := read(front, operation))["state"] != "running" and found)


def states(redis: Redis) -> list[str]:
    return sorted(record.state for record in Credentials(redis).list(["default"]))


def test_all_that_match_are_disabled_enabled_and_removed(front: Front, redis: Redis):
    begun = begin(front, action="disable", matching={"state": "active"})
    assert (begun["total"], begun["action"]) == (5, "disable")
    done = wait(front, begun["id"])
    assert (done["state"], done["done"], done["outcomes"]) == ("done", 5, {"ok": 5})
    assert states(redis) == 5 * ["disabled"]
    ids = [record.id for record in Credentials(redis).list(["default"])]
    wait(front, begin(front, action="enable", ids=[*ids[:2], ids[0]])["id"])
    assert states(redis) == [*2 * ["active"], *3 * ["disabled"]]
    wait(front, begin(front, action="remove", matching={"state": "disabled,dead"})["id"])
    assert states(redis) == 2 * ["active"]


def test_failures_are_grouped(front: Front):
    """No worker process runs."""
    done = wait(front, begin(front, action="test", matching={})["id"])
    assert done["outcomes"] == {"no worker process is running": 5}


def test_results_are_listed_by_outcome(front: Front, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    ids = [record.id for record in Credentials(redis).list(["default"])]
    result = {"ok": False, "error": "request 12 was refused", "code": "invalid_grant"}
    monkeypatch.setattr(
        front.services.operations,
        "request",
        lambda operation: {"ok": True} if operation.credential_id == ids[0] else result,
    )
    done = wait(front, begin(front, action="test", matching={})["id"])
    assert done["outcomes"] == {"ok": 1, "invalid_grant": 4}
    results = front.data(f"/bulk/{done['id']}/results?outcome=invalid_grant&limit=3")
    assert [row["credential"] for row in results] == sorted(ids[1:])[:3]
    assert front.admin("GET", f"/bulk/{done['id']}/results?limit=3").json["next"]
    assert front.data(f"/bulk/{done['id']}/results?outcome=ok")[0]["credential"] == ids[0]
    assert front.admin("GET", "/bulk/none/results").status_code == 404


def test_accounts_are_labelled_together(front: Front, redis: Redis):
    wait(front, begin(front, action="relabel", matching={}, label="of the shop")["id"])
    assert {record.label for record in Credentials(redis).list(["default"])} == {"of the shop"}
    for body in ({"action": "relabel"}, {"action": "test", "label": "x"}):
        assert front.admin("POST", "/bulk", {**body, "matching": {}}).status_code == 422


def test_drain_ends_when_the_last_requests_have_ended(front: Front, redis: Redis):
    busy, *_ = [record.id for record in Credentials(redis).list(["default"])]
    redis.set(keys.lease(busy), "process:1")
    redis.hset(keys.rq_worker(f"default.{busy}"), "state", "busy")
    begun = begin(front, action="drain", matching={})
    eventually(lambda: read(front, begun["id"])["outcomes"] == {"ok": 4})
    assert (states(redis), read(front, begun["id"])["state"]) == (5 * ["disabled"], "running")
    shown = front.admin("GET", f"/credentials/{busy}").json
    assert (shown["in_flight"], "last request still runs" in shown["explanation"]["rule"]) == (1, True)
    assert front.admin("POST", f"/credentials/{busy}/drain", {"seconds": 0}).json["in_flight"] == 1
    redis.delete(keys.lease(busy))
    assert wait(front, begun["id"])["outcomes"] == {"ok": 5}
    assert front.admin("POST", f"/credentials/{busy}/drain", {}).json["in_flight"] == 0


def test_cancelled_operation_ends_early(front: Front, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "BATCH", 1)
    monkeypatch.setattr(resource, "build_work", lambda *_: lambda _: gevent.sleep(0.5) or "ok")
    begun = begin(front, action="disable", matching={})
    for _ in range(2):
        response = front.admin("DELETE", f"/bulk/{begun['id']}")
        assert (response.json or {})["state"] == "cancelled"
    gevent.sleep(1)
    assert read(front, begun["id"])["done"] < 5
    changes = [entry.action for entry in AuditLog(redis).read_newest_first()]
    assert changes.count("bulk.cancel") == 1


def test_cancelled_operation_begins_no_other_batch(redis: Redis, unsealer: Unsealer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "BATCH", 2)
    Credentials(redis).import_lines("default", [f"token-{number}" for number in range(5)])
    store, begun = ProgressStore(redis), list[str]()
    operation = store.begin("test", 5)

    def cancel(record: CredentialRecord) -> str:
        begun.append(record.id)
        store.end(operation, "cancelled")
        return "ok"

    resource.run(store, operation, Credentials(redis).list(["default"]), cancel)
    assert (len(begun), store.get(operation).done, store.get(operation).state) == (2, 2, "cancelled")
    assert not store.end(operation, "done")


def test_drain_waits_only_for_those_that_it_has_disabled(redis: Redis, unsealer: Unsealer):
    Credentials(redis).import_lines("default", ["a", "b"])
    records, waited = Credentials(redis).list(["default"]), list[str]()
    store = ProgressStore(redis)
    operation = store.begin("drain", 2)

    def disable(record: CredentialRecord) -> str:
        return "ok" if record == records[0] else resource.GONE

    resource.run(store, operation, records, disable, lambda _, __, disabled: waited.extend(disabled))
    assert waited == [records[0].id]
    assert store.get(operation).outcomes == {resource.GONE: 1}


def test_drain_gives_up_at_last_and_when_it_is_cancelled(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    redis.set(keys.lease("busy"), "process:1")
    store = ProgressStore(redis)
    cancelled = store.begin("drain", 1)
    store.end(cancelled, "cancelled")
    gevent.spawn(resource.drain, store, cancelled, ["busy"]).get(timeout=60)
    monkeypatch.setattr(resource, "MAX_DRAIN_SECONDS", 0.0)
    patient = store.begin("drain", 1)
    resource.drain(store, patient, ["busy"])
    assert (store.get(patient).state, store.get(patient).outcomes) == ("done", {resource.STILL_BUSY: 1})


def test_foreign_accounts_are_left_alone_and_say_why(front: Front, redis: Redis):
    foreign, *_ = [record.id for record in Credentials(redis).list(["default"])]
    redis.hset(keys.credentials("default"), foreign, "foreign")
    redis.hset(keys.credential(foreign), "reason", "given for another token endpoint")
    for action, others in (("test", "no worker process is running"), ("enable", "ok")):
        done = wait(front, begin(front, action=action, matching={})["id"])
        assert done["outcomes"] == {"given for another token endpoint": 1, others: 4}
    assert states(redis).count("foreign") == 1


def test_accounts_that_are_gone_meanwhile_are_told(front: Front, redis: Redis):
    (record, *_) = Credentials(redis).list(["default"])
    with front.app.test_request_context("/"):
        g.admin = AdminTokens(redis).list()[0]
        works = [resource.build_work(action, redis, front.services.operations, "x") for action in GONE_ACTIONS]
    Credentials(redis).remove("default", record.id)
    assert [work(record) for work in works] == len(works) * [resource.GONE]


def test_audit_log_names_some_of_many_accounts(front: Front, redis: Redis):
    Credentials(redis).import_lines("default", [f"further-{number}" for number in range(resource.MAX_NAMED)])
    wait(front, begin(front, action="disable", matching={})["id"])
    entry = next(entry for entry in AuditLog(redis).read_newest_first() if entry.action == "credentials.disable")
    assert (entry.details["count"], len(entry.details["ids"])) == (resource.MAX_NAMED + 5, resource.MAX_NAMED)


def test_accounts_of_another_pool_do_not_match(front: Front, redis: Redis):
    assert begin(front, action="disable", matching={"pool": "other"})["total"] == 0
    assert states(redis) == 5 * ["active"]


def test_progress_and_results_expire_and_outcomes_are_bounded(redis: Redis):
    store = ProgressStore(redis)
    operation = store.begin("test", 1)
    store.record(operation, {"a": "x" * 1000})
    assert store.get(operation).outcomes == {MAX_OUTCOME_LENGTH * "x": 1}
    for key in (keys.bulk_operation(operation), keys.bulk_results(operation)):
        assert 0 < redis.ttl(key) <= TTL_SECONDS


def test_front_that_has_ended_interrupts_its_operations(redis: Redis):
    store = ProgressStore(redis)
    operation = store.begin("test", 2)
    assert store.record(operation, {"a": "ok"})
    redis.hset(keys.bulk_operation(operation), "updated_at", time.time() - SILENCE_SECONDS - 1)
    assert store.get(operation).state == "interrupted"


def test_number_of_different_outcomes_is_bounded(redis: Redis):
    store = ProgressStore(redis)
    operation = store.begin("test", 200)
    store.record(operation, {f"c{number}": f"error {number}" for number in range(100)})
    store.record(operation, {"x": "error 1", "y": "another"})
    progress = store.get(operation)
    assert (progress.done, len(progress.outcomes)) == (102, MAX_OUTCOMES + 1)
    assert (progress.outcomes["error 1"], progress.outcomes[OTHER]) == (2, 100 - MAX_OUTCOMES + 1)


@pytest.mark.parametrize("body", [{}, {"ids": ["x"], "matching": {}}, {"ids": []}])
def test_selection_must_be_clear(front: Front, body: dict[str, Any]):
    assert front.admin("POST", "/bulk", {"action": "remove", **body}).status_code == 422
    assert front.admin("POST", "/bulk", {"action": "remove", "ids": ["unknown"]}).status_code == 404
    assert front.admin("GET", "/bulk/none").status_code == 404
    assert len(Credentials(front.redis).list(["default"])) == 5
