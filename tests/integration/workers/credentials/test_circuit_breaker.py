"""The pool's circuit breaker: an upstream that is down blames no account and eats no request."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Head
from shared.redis_connection.client import decode_hash
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames
from tests.waiting import eventually
from workers.attempt.upstream_errors import classify_error_response
from workers.credentials import circuit_breaker as module
from workers.credentials.circuit_breaker import FAULTS_TO_OPEN, CircuitBreaker
from workers.worker.credential_health import MAX_UPSTREAM_COOLDOWN_SECONDS


def breaker(redis: Redis, process: str = "a") -> CircuitBreaker:
    return CircuitBreaker(redis, "p", process, Counters())


def record(redis: Redis) -> dict[str, str]:
    return decode_hash(redis.hgetall(keys.breaker("p")))


def fail(one: CircuitBreaker, times: int = FAULTS_TO_OPEN, credentials: int = 3, requests: int = 2) -> None:
    for i in range(times):
        one.record_fault(f"c{i % credentials}", f"r{i % requests}", "unreachable", 10)


def test_faults_in_a_row_of_several_accounts_and_requests_open_it(redis: Redis):
    one = breaker(redis)
    fail(one, FAULTS_TO_OPEN - 1)
    assert one.allows("c9")
    fail(one, 1)
    assert not one.allows("c9")
    assert record(redis)["reason"] == "unreachable"


@pytest.mark.parametrize(("credentials", "requests"), [(2, 2), (3, 1)])
def test_one_account_or_one_request_that_fails_says_nothing_of_the_upstream(
    redis: Redis, credentials: int, requests: int
):
    one = breaker(redis)
    fail(one, 50, credentials, requests)
    assert one.allows("c9")


def test_an_answer_in_between_starts_the_count_anew(redis: Redis):
    one = breaker(redis)
    for _ in range(5):
        fail(one, FAULTS_TO_OPEN - 1)
        one.record_success(time.time())
    assert one.allows("c9")


def test_an_answer_to_what_was_asked_before_it_opened_says_nothing(redis: Redis):
    one = breaker(redis)
    before = time.time()
    fail(one)
    one.record_success(before)
    assert not one.allows("c9")


def test_every_process_learns_it_and_one_worker_of_all_probes(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PROBE_BACKOFF_SECONDS", 0.0)
    one, other = breaker(redis), breaker(redis, "b")
    fail(one)
    other.sync(record(redis), time.monotonic())
    assert not other.allows("d1")
    assert one.assign_probe(["c1", "c2"], ["c1", "c2"]) == "c1"
    assert other.assign_probe(["d1"], ["d1"]) == ""
    assert (one.allows("c1"), one.allows("c2"), other.allows("d1")) == (True, False, False)
    one.record_success(time.time())
    assert (record(redis), redis.exists(keys.probe("p"))) == ({}, 0)
    other.sync(record(redis), time.monotonic())
    assert other.allows("d1")


def test_a_probe_that_fails_makes_the_next_one_wait_longer(redis: Redis):
    one = breaker(redis)
    fail(one)
    waits = []
    for _ in range(6):
        one._probe_at = 0.0
        assert one.assign_probe(["c1"], ["c1"]) == "c1"
        one.record_fault("c1", "r1", "unreachable", 10)
        waits.append(float(record(redis)["probe_at"]) - time.time())
    assert waits[1] > waits[0]
    assert max(waits) <= module.MAX_PROBE_BACKOFF_SECONDS * 1.25
    assert not redis.exists(keys.probe("p"))


def test_a_probe_whose_worker_has_gone_is_given_to_another(redis: Redis):
    one = breaker(redis)
    fail(one)
    one._probe_at = 0.0
    one.assign_probe(["c1"], ["c1"])
    assert one.assign_probe(["c2"], ["c2"]) == ""
    redis.delete(keys.probe("p"))
    assert one.assign_probe(["c2"], ["c2"]) == "c2"


def test_a_worker_that_is_busy_with_something_old_is_no_probe_and_one_that_probes_may_be_busy(redis: Redis):
    one = breaker(redis)
    fail(one)
    one._probe_at = 0.0
    assert one.assign_probe(["old", "c1"], ["c1"]) == "c1"
    assert one.assign_probe(["old", "c1"], []) == ""
    assert one.probing_credential == "c1"


def test_what_was_read_before_our_own_word_counts_for_nothing(redis: Redis):
    one = breaker(redis)
    before = time.monotonic()
    fail(one)
    one.sync({}, before)
    assert not one.allows("c9")


def test_requests_wait_for_an_upstream_that_is_down_and_pay_for_no_probe(harness: WorkerHarness):
    gate = harness.services.breakers["default"]
    harness.upstream.faults(server_error=1)
    fail(gate)
    mailbox = harness.enqueue()
    for probes in range(1, 4):
        gate._probe_at = 0.0
        gate.assign_probe([harness.credential_id], [harness.credential_id])
        eventually(lambda p=probes: harness.upstream.counters().get("fault_server_error", 0) >= p)
        eventually(lambda: harness.queue.count_waiting("default") == 1)
        harness.worker.runner.health.cooldown.end()
    assert harness.redis.hget("rq:job:req_1", "number_of_retries") == b"0"
    harness.upstream.faults()
    gate._probe_at = 0.0
    gate.assign_probe([harness.credential_id], [harness.credential_id])
    assert Head.decode(collect_frames(mailbox)[0].payload).attempts == 1
    eventually(lambda: gate.allows("anybody"), within=1)


def test_a_worker_that_does_not_know_yet_begins_no_job(harness: WorkerHarness):
    harness.redis.hset(keys.breaker("default"), mapping={"probe_at": "0", "failed_probes": "0", "reason": "x"})
    mailbox = harness.enqueue()
    eventually(lambda: harness.services.breakers["default"].is_open)
    assert harness.queue.count_waiting("default") == 1
    assert harness.upstream.counters()["served"] == 0
    harness.services.breakers["default"].record_success(time.time())
    assert collect_frames(mailbox)


def test_a_request_that_fails_everywhere_does_not_hold_up_the_others(harness: WorkerHarness):
    gate = harness.services.breakers["default"]
    harness.upstream.faults(server_error=1)
    fail(gate)
    poison, good = harness.enqueue("req_poison"), harness.enqueue("req_good")
    gate._probe_at = 0.0
    gate.assign_probe([harness.credential_id], [harness.credential_id])
    eventually(lambda: harness.upstream.counters().get("fault_server_error", 0) == 1)
    eventually(lambda: harness.queue.count_waiting("default") == 2)
    assert harness.redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_good", b"req_poison"]
    harness.upstream.faults()
    harness.worker.runner.health.cooldown.end()
    gate._probe_at = 0.0
    gate.assign_probe([harness.credential_id], [harness.credential_id])
    assert collect_frames(good)
    assert collect_frames(poison)


def test_the_first_byte_of_a_probe_closes_it(harness: WorkerHarness):
    gate = harness.services.breakers["default"]
    fail(gate)
    harness.upstream.pace(chunks=20, chunk_delay=0.2)
    body = CHAT_BODY.replace(b'{"model"', b'{"stream": true, "model"')
    mailbox = harness.enqueue(body=body, stream=True)
    gate._probe_at = 0.0
    gate.assign_probe([harness.credential_id], [harness.credential_id])
    assert mailbox.get(5)
    eventually(lambda: gate.allows("anybody"), within=1)
    assert harness.upstream.counters()["in_flight"] == 1


def test_a_retry_after_of_an_upstream_that_fails_pauses_no_account_for_long(harness: WorkerHarness):
    condition = harness.worker.runner.health
    failed = classify_error_response(1, 503, {"retry-after": "3600"}, b"")
    condition.begin_cooldown(failed)
    assert condition.cooldown.remaining() <= MAX_UPSTREAM_COOLDOWN_SECONDS
