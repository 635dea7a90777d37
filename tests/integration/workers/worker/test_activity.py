"""What a credential does is counted in memory, and written for operators every few seconds."""

import json
import time
from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import clock, keys
from shared.credentials.activity.activity import Activity, ActivityStore, Gains
from shared.credentials.activity.allowance import Left
from shared.credentials.activity.attempt_counts import SLOT_SECONDS, SlotCounts, slot_start
from shared.credentials.evidence import UPSTREAM, Evidence
from shared.protocol.messages import FrameKind
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames
from tests.redis_dump import dump_redis
from tests.waiting import eventually
from workers.worker.activity_recorder import ActivityRecorder, CredentialActivity

StartHarness = Callable[..., WorkerHarness]


def read_activity(harness: WorkerHarness) -> Activity:
    store = ActivityStore(harness.redis)
    harness.services.activity.flush(store)
    return store.read([("default", harness.credential_id, "here")], {})[0]


def test_served_attempts_are_counted_with_their_first_byte(harness: WorkerHarness):
    harness.upstream.pace(delay=0.3)
    assert collect_frames(harness.enqueue())[-1].kind is FrameKind.END
    harness.wait_until_idle()
    activity = eventually(lambda: (found := read_activity(harness)).last_hour.served and found)
    assert (activity.last_hour.served, activity.last_hour.success_rate) == (1, 1.0)
    assert activity.last_hour.first_byte_seconds > 0.25
    assert activity.used_at == pytest.approx(clock.now(), abs=60)
    assert (activity.last_failure, activity.allowance, activity.last_test) == (None, None, None)


def test_failed_attempt_is_counted_and_the_last_one_named(start_harness: StartHarness):
    harness = start_harness(max_attempts=1)
    harness.upstream.faults(rate_limit=1, retry_after=30)
    harness.enqueue()
    activity = eventually(lambda: (found := read_activity(harness)).last_failure and found)
    assert (activity.last_hour.failed, activity.last_hour.success_rate) == (1, 0.0)
    assert (activity.last_failure.outcome, activity.last_failure.evidence) == (
        "rate_limited",
        Evidence(UPSTREAM, 429, "rate_limit_exceeded"),
    )


def test_response_that_breaks_off_is_a_failed_attempt(harness: WorkerHarness):
    harness.upstream.faults(cut=1)
    harness.enqueue(body=json.dumps({**json.loads(CHAT_BODY), "stream": True}).encode())
    activity = eventually(lambda: (found := read_activity(harness)).last_failure and found)
    assert (activity.last_hour.served, activity.last_hour.failed) == (0, 1)
    assert activity.last_failure.evidence.source == UPSTREAM


def test_fault_of_a_request_counts_neither_way(start_harness: StartHarness):
    harness = start_harness(credentials=3, max_attempts=8)
    harness.upstream.faults(poison=400)
    body = json.dumps({**json.loads(CHAT_BODY), "model": "poison"}).encode()
    assert collect_frames(harness.enqueue(body=body))[-1].kind is FrameKind.END
    store = ActivityStore(harness.redis)
    everyone = [("default", worker.lease.credential_id, "here") for worker in harness.workers]

    def read_used() -> list[Activity]:
        harness.services.activity.flush(store)
        return [activity for activity in store.read(everyone, {}) if activity.used_at]

    (used,) = eventually(read_used)
    assert (used.last_hour.served, used.last_hour.failed, used.last_failure) == (0, 0, None)


def test_refused_token_request_is_the_last_failure_and_no_attempt(harness: WorkerHarness):
    harness.upstream.token_rules(parameters={"audience": "somewhere"})
    harness.enqueue()
    activity = eventually(lambda: (found := read_activity(harness)).last_failure and found)
    assert (activity.last_failure.outcome, activity.last_failure.evidence.code) == ("no_token", "invalid_target")
    assert activity.last_hour.success_rate is None


def test_account_shows_what_the_upstream_says_it_has_left(harness: WorkerHarness):
    harness.upstream.allowances(requests=5, window=100)
    collect_frames(harness.enqueue())
    activity = eventually(lambda: (found := read_activity(harness)).allowance and found)
    (left,) = activity.allowance.left
    assert left == Left("requests", 4, 5, left.reset_at)
    assert 0 < left.reset_at - activity.allowance.at <= 100


def test_running_request_is_seen_at_once(harness: WorkerHarness):
    harness.upstream.pace(delay=2.0)
    mailbox = harness.enqueue()
    eventually(lambda: read_activity(harness).in_flight == 1)
    collect_frames(mailbox)
    eventually(lambda: read_activity(harness).in_flight == 0)


def test_processes_add_to_each_others_counts_and_old_slots_go(harness: WorkerHarness, redis: Redis):
    store = ActivityStore(redis)
    now = clock.now()
    old = slot_start(now) - 12 * SLOT_SECONDS
    store.record({harness.credential_id: Gains(slots={old: SlotCounts(7, 7)})})
    for _ in range(2):
        recorder = ActivityRecorder()
        activity = CredentialActivity(recorder, harness.credential_id)
        for seconds in (0.1, 0.1, 0.4):
            activity.record_served(seconds, now)
        recorder.flush(store)
    recent = store.read([("default", harness.credential_id, "here")], {})[0].last_hour
    assert (recent.served, recent.failed) == (6, 0)
    assert recent.first_byte_seconds == pytest.approx(0.1, rel=0.2)
    assert not redis.hexists(keys.activity(harness.credential_id), str(old))


def test_removed_credential_leaves_no_activity(harness: WorkerHarness, redis: Redis):
    collect_frames(harness.enqueue())
    eventually(lambda: read_activity(harness).used_at)
    harness.credentials.remove("default", harness.credential_id)
    assert not redis.exists(keys.activity(harness.credential_id))
    CredentialActivity(harness.services.activity, harness.credential_id).record_used()
    assert read_activity(harness) == Activity()
    assert not redis.exists(keys.activity(harness.credential_id))


def test_flush_that_fails_writes_the_latest_values_later(harness: WorkerHarness, redis: Redis):
    recorder = ActivityRecorder()
    activity = CredentialActivity(recorder, harness.credential_id)
    activity.record_served(0.1, time.time())
    store = ActivityStore(Redis(port=1, single_connection_client=False))
    with pytest.raises(RedisConnectionError):
        recorder.flush(store)
    recorder.flush(ActivityStore(redis))
    found = ActivityStore(redis).read([("default", harness.credential_id, "here")], {})[0]
    assert (found.used_at > 0, found.last_hour.served) == (True, 0)


def test_kept_test_has_no_text(harness: WorkerHarness, redis: Redis):
    store = ActivityStore(redis)
    result = {"ok": False, "error": "the key hunter2 is bad", "code": "Not a code", "status": 403, "model": "hunter2"}
    store.keep_test(harness.credential_id, result)
    (kept,) = [activity.last_test for activity in store.read([("default", harness.credential_id, "here")], {})]
    assert (kept.ok, kept.code, kept.status, kept.chat_ms) == (False, "", 403, 0)
    assert "hunter2" not in dump_redis(redis)
