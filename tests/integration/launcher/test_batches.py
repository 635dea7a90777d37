"""`./farm batches` lists, shows and cancels batches."""

import json

from redis import Redis

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.batches.batch_store import Batches
from shared.observability.audit_log import AuditLog
from tests.console_batches import add_batch
from tests.integration.launcher.conftest import Run


def test_batches_are_listed_shown_and_cancelled(run: Run, redis: Redis):
    _, key = ApiKeys(redis).create("the translator")
    ended, running = add_batch(redis, key.id, "completed"), add_batch(redis, key.id, "in_progress")
    add_batch(redis, "other", "failed")

    listed = json.loads(run("batches", "list", "--key", key.id, "--json").stdout)
    assert {batch["id"]: batch["status"] for batch in listed} == {ended.id: "completed", running.id: "in_progress"}
    assert [batch["id"] for batch in json.loads(run("batches", "list", "--active", "--json").stdout)] == [running.id]
    assert "the translator" in run("batches", "list").stdout

    shown = json.loads(run("batches", "show", running.id, "--json").stdout)
    assert (shown["key"], shown["key_name"]) == (key.id, "the translator")
    assert shown["request_counts"] == {"total": 40, "completed": 25, "failed": 3}
    text = run("batches", "show", running.id).stdout
    assert "status: in_progress\n" in text
    assert "requests: 40 in all, 25 completed, 3 failed\n" in text
    assert "tokens: 0 in (0 cached), 0 out (0 reasoning)\nmetadata: text=text\n" in text

    assert run("batches", "cancel", running.id).stdout == f"{running.id} is being cancelled\n"
    assert (Batches(redis).get(running.id).status, Batches(redis).get(running.id).reason) == ("cancelling", "operator")
    assert next(AuditLog(redis).read_newest_first()).action == "batch.cancel"
    assert run("batches", "cancel", ended.id).exit_code == 1
    assert run("batches", "show", "batch_none").exit_code == 1


def test_pace_and_standstill_are_told(run: Run, redis: Redis):
    moving = add_batch(redis, "k", "in_progress")
    still = add_batch(redis, "k", "in_progress", samples=[[int(clock.now()) - 750, 28]], hindrance="upstream_down")
    note = "no request has ended for 12 min: the upstream is down"
    listed = run("batches", "list").stdout
    assert " 3.5 " in listed and " 0.0 " in listed and listed.count(note) == 1
    assert f"stands still: {note}\n" in run("batches", "show", still.id).stdout
    text = run("batches", "show", moving.id).stdout
    assert "requests a minute: 3.5\n" in text and "stands still: -\n" in text and "estimated_end_at: 2" in text
    shown = json.loads(run("batches", "show", still.id, "--json").stdout)
    assert (shown["per_minute"], shown["estimated_end_at"], shown["hindrance"]) == (0, 0, "upstream_down")


def test_the_faults_of_an_input_are_shown(run: Run, redis: Redis):
    batch = add_batch(redis, "k", "failed")
    assert "error: line 3: invalid_json_line: text" in run("batches", "show", batch.id).stdout


def test_batch_that_has_ended_is_removed(run: Run, redis: Redis):
    ended, running, kept = (add_batch(redis, "k", status) for status in ("completed", "in_progress", "expired"))
    assert run("batches", "remove", ended.id).stdout == f"{ended.id} removed\n"
    assert run("batches", "show", ended.id).exit_code == 1
    entry = next(AuditLog(redis).read_newest_first())
    assert (entry.action, entry.target) == ("batch.remove", ended.id)
    for key in (None, "k"):
        assert {batch.id for batch in Batches(redis).list_newest(key)} == {running.id, kept.id}
    assert redis.zcard(keys.BATCHES) == redis.zcard(keys.batches("k")) == 2

    refused = run("batches", "remove", running.id)
    assert (refused.exit_code, "cancel it first" in refused.stderr) == (1, True)
    assert Batches(redis).get(running.id).status == "in_progress"
    assert run("batches", "remove", ended.id).exit_code == 1
