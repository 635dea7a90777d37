"""Blame needs evidence: a failure is the request's, the credential's or the upstream's, and only the right one pays."""

import json
from collections.abc import Callable

import pytest

from shared import keys
from shared.protocol.messages import Failure, Frame, FrameKind, Head
from tests import internals
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually
from workers.attempt.blame import (
    FAULTS_TO_BLAME,
    RATE_LIMITS_TO_BLAME,
    REFUSALS_TO_BLAME,
    TIMED_RATE_LIMITS_TO_BLAME,
    UNPAID_TO_BLAME,
)
from workers.process.membership import Membership
from workers.process.worker_set import WorkerSet

StartHarness = Callable[..., WorkerHarness]
POISON = json.dumps({**json.loads(CHAT_BODY), "model": "poison"}).encode()


def serve_once_on_each(harness: WorkerHarness) -> None:
    """Gives every credential a success, all at the same time."""
    eventually(lambda: harness.count_idle() == len(harness.workers))
    harness.upstream.pace(delay=0.3)
    mailboxes = [harness.enqueue(f"req_first_{number}") for number in range(len(harness.workers))]
    for mailbox in mailboxes:
        assert Head.decode(collect_frames(mailbox)[0].payload).status == 200
    harness.upstream.pace()
    eventually(lambda: harness.count_idle() == len(harness.workers))


def head_of(frames: list[Frame]) -> Head:
    assert frames[0].kind is FrameKind.HEAD, Failure.decode(frames[0].payload)
    return Head.decode(frames[0].payload)


def paused(harness: WorkerHarness) -> list[float]:
    """Remaining cooldowns in seconds."""
    remaining = [worker.runner.health.cooldown.remaining() for worker in harness.workers]
    return [seconds for seconds in remaining if seconds]


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [
        ({"poison": 403}, REFUSALS_TO_BLAME),
        ({"poison": 402}, UNPAID_TO_BLAME),
        ({"poison": 429}, RATE_LIMITS_TO_BLAME),
        ({"poison": 429, "poison_retry_after": 60}, TIMED_RATE_LIMITS_TO_BLAME),
        ({"poison": 500}, FAULTS_TO_BLAME),
    ],
)
def test_request_that_several_credentials_refuse_is_the_culprit_and_nobody_pauses(
    start_harness: StartHarness, faults: dict[str, int], attempts: int
):
    harness = start_harness(credentials=6, max_attempts=8)
    serve_once_on_each(harness)
    harness.upstream.faults(**faults)
    frames = collect_frames(harness.enqueue("req_poison", POISON))
    head = head_of(frames)
    assert (head.status, head.attempts) == (faults["poison"], attempts)
    assert b"poisoned" in frames[1].payload
    eventually(lambda: paused(harness) == [])
    eventually(lambda: set(harness.credentials.get_states("default").values()) == {"active"})
    assert head_of(collect_frames(harness.enqueue("req_good"))).attempts == 1


def test_credential_refuses_the_culprit_only_once(start_harness: StartHarness):
    """Each attempt is on another credential, and a credential that has refused goes on with other requests."""
    harness = start_harness(credentials=3, max_attempts=8)
    harness.upstream.faults(poison=403)
    assert head_of(collect_frames(harness.enqueue("req_poison", POISON))).attempts == 2
    assert harness.upstream.counters()["fault_poison"] == 2


def test_cooldown_that_another_request_has_caused_is_not_taken_back(start_harness: StartHarness):
    harness = start_harness(credentials=2)
    health = harness.worker.runner.health
    health.cooldown.begin(60.0, cause="req_other")
    health.cooldown.begin(90.0, cause="req_culprit")
    health.take_back("req_culprit")
    assert 50 < health.cooldown.remaining() <= 60
    health.take_back("req_other")
    assert not health.cooldown.remaining()


def test_credential_that_fails_what_others_serve_pauses_longer_each_time(start_harness: StartHarness):
    harness = start_harness(credentials=3, max_attempts=8)
    serve_once_on_each(harness)
    harness.upstream.faults(bad_account=0)
    health = harness.worker.runner.health
    served = 0
    while harness.upstream.counters().get("fault_bad_account", 0) < 4:
        served += 1
        assert head_of(collect_frames(harness.enqueue(f"req_{served}"))).status == 200
    eventually(lambda: health.cooldown.remaining() > 1.5)
    assert len(paused(harness)) == 1
    before = harness.upstream.counters()["fault_bad_account"]
    for number in range(20):
        assert head_of(collect_frames(harness.enqueue(f"req_more_{number}"))).status == 200
    assert harness.upstream.counters()["fault_bad_account"] <= before + 2
    harness.upstream.faults()
    health.cooldown.end()
    eventually(lambda: harness.count_idle() == 3)
    serve_once_on_each(harness)
    assert health.is_credible


def test_retry_on_another_credential_waits_for_a_busy_one(start_harness: StartHarness):
    """The others are busy with streams: the request waits for one of them, and does not go back to the bad one."""
    harness = start_harness(credentials=3, max_attempts=8, first_byte_timeout=60.0, idle_timeout=60.0)
    eventually(lambda: harness.count_idle() == 3)
    harness.upstream.faults(bad_account=0)
    harness.upstream.pace(chunks=40, chunk_delay=0.1)
    for number in range(2):
        harness.enqueue(f"req_stream_{number}", streaming_body(), stream=True)
    eventually(lambda: harness.upstream.counters()["in_flight"] == 2)
    tried = harness.upstream.counters().get("fault_bad_account", 0)
    mailbox = harness.enqueue("req_late")
    eventually(lambda: harness.upstream.counters().get("fault_bad_account", 0) == tried + 1)
    eventually(lambda: harness.redis.zrange(keys.waiting_retries("default"), 0, -1) == [b"req_late"])
    head = head_of(collect_frames(mailbox, within=30))
    assert (head.status, head.attempts) == (200, 2)
    assert harness.upstream.counters()["fault_bad_account"] == tried + 1


def test_idle_credential_is_woken_for_a_request_that_another_has_failed(start_harness: StartHarness):
    """I2: nobody waits until a worker happens to look."""
    harness = start_harness(credentials=2)
    eventually(lambda: harness.count_idle() == 2)
    harness.upstream.faults(bad_account=0)
    for number in range(4):
        assert head_of(collect_frames(harness.enqueue(f"req_{number}"))).status == 200


def test_idle_credential_takes_a_request_again_once_no_other_is_left(start_harness: StartHarness):
    """I2: the only credential that had not tried it is disabled while it is busy."""
    harness = start_harness(credentials=2, max_attempts=8, idle_timeout=60.0)
    eventually(lambda: harness.count_idle() == 2)
    harness.upstream.faults(bad_account=0)
    harness.upstream.pace(chunks=600, chunk_delay=0.05)
    harness.enqueue("req_stream", streaming_body(), stream=True)
    eventually(lambda: harness.upstream.counters()["in_flight"] == 1)
    mailbox = harness.enqueue("req_late")
    eventually(lambda: harness.redis.zrange(keys.waiting_retries("default"), 0, -1) == [b"req_late"])
    eventually(lambda: harness.count_idle() == 1)
    harness.upstream.faults()
    harness.upstream.pace()
    membership = Membership(harness.redis, "here", harness.settings)
    worker_set = WorkerSet(harness.services, None, membership, None, {})  # type: ignore[arg-type]
    internals.add_workers(worker_set, {worker.name: worker for worker in harness.workers})
    harness.credentials.set_state("default", harness.workers[1].lease.credential_id, "disabled", "by a person")

    def is_served() -> bool:
        membership.refresh([])
        internals.look_for_retries(worker_set)
        worker_set.wake_idle()
        return not harness.redis.exists("rq:job:req_late")

    eventually(is_served)
    assert head_of(collect_frames(mailbox)).attempts == 2


def test_refusal_of_the_only_credential_ends_the_request_at_once(start_harness: StartHarness):
    harness = start_harness(max_attempts=8)
    harness.upstream.faults(poison=403)
    assert head_of(collect_frames(harness.enqueue("req_poison", POISON))).attempts == 1
    assert harness.credential_state() == ("active", "")


def test_poison_of_one_key_does_not_open_the_breaker_for_the_others(start_harness: StartHarness):
    harness = start_harness(credentials=6, max_attempts=3)
    serve_once_on_each(harness)
    harness.upstream.faults(poison=500)
    mailboxes = [harness.enqueue(f"req_poison_{number}", POISON, key="poisoner") for number in range(6)]
    for mailbox in mailboxes:
        assert head_of(collect_frames(mailbox)).status == 500
    assert not harness.services.breakers["default"].is_open
    assert head_of(collect_frames(harness.enqueue("req_good"))).attempts == 1
