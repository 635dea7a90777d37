"""The pool's circuit breaker: an upstream outage blames no credential and costs no attempts."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Head
from shared.redis_connection.client import decode_hash
from tests import internals
from tests.builders import build_request
from tests.integration.harness import WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually
from workers.attempt.upstream_errors import classify_error_response
from workers.credentials import circuit_breaker
from workers.credentials.circuit_breaker import FAULTS_TO_OPEN, CircuitBreaker
from workers.credentials.suspicion import MAX_UNPROVEN_SECONDS


def build_breaker(redis: Redis, process: str = "a") -> CircuitBreaker:
    return CircuitBreaker(redis, "p", process, Counters())


def stored_breaker(redis: Redis) -> dict[str, str]:
    return decode_hash(redis.hgetall(keys.breaker("p")))


def record_faults(
    breaker: CircuitBreaker, times: int = FAULTS_TO_OPEN, credentials: int = 3, requests: int = 2
) -> None:
    for i in range(times):
        breaker.record_fault(f"c{i % credentials}", f"r{i % requests}", "unreachable", 10)


def test_breaker_opens_after_faults_of_several_credentials_and_requests(redis: Redis):
    breaker = build_breaker(redis)
    record_faults(breaker, FAULTS_TO_OPEN - 1)
    assert breaker.allows("c9")
    record_faults(breaker, 1)
    assert not breaker.allows("c9")
    assert stored_breaker(redis)["reason"] == "unreachable"


def test_events_tell_the_faults_that_opened_it_and_each_probe(redis: Redis, caplog: pytest.LogCaptureFixture):
    breaker = build_breaker(redis)
    with caplog.at_level("INFO", "farm.breaker"):
        breaker.record_fault("c9", "r9", "timeout", 10)
        breaker.record_success(time.time())  # What was before that has not opened it.
        record_faults(breaker)
        breaker.probing_credential = "c2"
        breaker.record_fault("c2", "r7", "timeout", 10)
    opened, probed = caplog.records
    assert [(fault["request_id"], fault["credential_id"]) for fault in vars(opened)["faults"]] == [
        *(("r0", "c0"), ("r1", "c1"), ("r0", "c2"), ("r1", "c0"), ("r0", "c1"))
    ]
    assert {fault["reason"] for fault in vars(opened)["faults"]} == {"unreachable"}
    shown = {name: vars(probed)[name] for name in ("action", "credential_id", "request_id", "reason")}
    assert shown == {"action": "breaker_probed", "credential_id": "c2", "request_id": "r7", "reason": "timeout"}


@pytest.mark.parametrize(("credentials", "requests"), [(2, 2), (3, 1)])
def test_breaker_ignores_faults_of_few_credentials_or_requests(redis: Redis, credentials: int, requests: int):
    breaker = build_breaker(redis)
    record_faults(breaker, 50, credentials, requests)
    assert breaker.allows("c9")


def test_success_restarts_the_fault_count(redis: Redis):
    breaker = build_breaker(redis)
    for _ in range(5):
        record_faults(breaker, FAULTS_TO_OPEN - 1)
        breaker.record_success(time.time())
    assert breaker.allows("c9")


def test_breaker_stays_open_after_success_of_an_earlier_request(redis: Redis):
    breaker = build_breaker(redis)
    before = time.time()
    record_faults(breaker)
    breaker.record_success(before)
    assert not breaker.allows("c9")


def test_breaker_is_open_in_all_processes_and_one_worker_probes(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuit_breaker, "PROBE_BACKOFF_SECONDS", 0.0)
    breaker, other = build_breaker(redis), build_breaker(redis, "b")
    record_faults(breaker)
    other.sync(stored_breaker(redis), time.monotonic())
    assert not other.allows("d1")
    assert breaker.assign_probe(["c1", "c2"], ["c1", "c2"]) == "c1"
    assert other.assign_probe(["d1"], ["d1"]) == ""
    assert (breaker.allows("c1"), breaker.allows("c2"), other.allows("d1")) == (True, False, False)
    breaker.record_success(time.time())
    assert (stored_breaker(redis), redis.exists(keys.probe("p"))) == ({}, 0)
    other.sync(stored_breaker(redis), time.monotonic())
    assert other.allows("d1")


def test_failed_probe_delays_the_next_one_longer(redis: Redis):
    breaker = build_breaker(redis)
    record_faults(breaker)
    waits = []
    for _ in range(6):
        internals.make_probe_due(breaker)
        assert breaker.assign_probe(["c1"], ["c1"]) == "c1"
        breaker.record_fault("c1", "r1", "unreachable", 10)
        waits.append(float(stored_breaker(redis)["probe_at"]) - time.time())
    assert waits[1] > waits[0]
    assert max(waits) <= circuit_breaker.MAX_PROBE_BACKOFF_SECONDS * 1.25
    assert not redis.exists(keys.probe("p"))


def test_probe_whose_worker_is_gone_is_assigned_to_another(redis: Redis):
    breaker = build_breaker(redis)
    record_faults(breaker)
    internals.make_probe_due(breaker)
    breaker.assign_probe(["c1"], ["c1"])
    assert breaker.assign_probe(["c2"], ["c2"]) == ""
    redis.delete(keys.probe("p"))
    assert breaker.assign_probe(["c2"], ["c2"]) == "c2"


def test_busy_worker_is_not_assigned_a_probe_but_keeps_its_own(redis: Redis):
    breaker = build_breaker(redis)
    record_faults(breaker)
    internals.make_probe_due(breaker)
    assert breaker.assign_probe(["old", "c1"], ["c1"]) == "c1"
    assert breaker.assign_probe(["old", "c1"], []) == ""
    assert breaker.probing_credential == "c1"


def test_breaker_ignores_state_read_before_it_opened_here(redis: Redis):
    breaker = build_breaker(redis)
    before = time.monotonic()
    record_faults(breaker)
    breaker.sync({}, before)
    assert not breaker.allows("c9")


def test_open_breaker_makes_requests_wait_and_probes_cost_no_attempts(harness: WorkerHarness):
    breaker = harness.services.breakers["default"]
    harness.upstream.faults(server_error=1)
    record_faults(breaker)
    mailbox = harness.enqueue()
    for probes in range(1, 4):
        internals.make_probe_due(breaker)
        breaker.assign_probe([harness.credential_id], [harness.credential_id])
        eventually(lambda p=probes: harness.upstream.counters().get("fault_server_error", 0) >= p)
        eventually(lambda: harness.queue.count_waiting("default") == 1)
        harness.worker.runner.health.cooldown.end()
    assert harness.redis.hget("rq:job:req_1", "number_of_retries") == b"0"
    harness.upstream.faults()
    internals.make_probe_due(breaker)
    breaker.assign_probe([harness.credential_id], [harness.credential_id])
    assert Head.decode(collect_frames(mailbox)[0].payload).attempts == 1
    eventually(lambda: breaker.allows("anybody"))


def test_worker_that_has_not_seen_the_open_breaker_starts_no_job(harness: WorkerHarness):
    harness.redis.hset(keys.breaker("default"), mapping={"probe_at": "0", "failed_probes": "0", "reason": "x"})
    mailbox = harness.enqueue()
    eventually(lambda: harness.services.breakers["default"].is_open)
    assert harness.queue.count_waiting("default") == 1
    assert harness.upstream.counters()["served"] == 0
    harness.services.breakers["default"].record_success(time.time())
    assert collect_frames(mailbox)


def test_request_that_always_fails_does_not_block_the_others(harness: WorkerHarness):
    breaker = harness.services.breakers["default"]
    harness.upstream.faults(server_error=1)
    record_faults(breaker)
    poison, good = harness.enqueue("req_poison"), harness.enqueue("req_good")
    internals.make_probe_due(breaker)
    breaker.assign_probe([harness.credential_id], [harness.credential_id])
    eventually(lambda: harness.upstream.counters().get("fault_server_error", 0) == 1)
    eventually(lambda: harness.queue.count_waiting("default") == 2)
    assert harness.redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_good", b"req_poison"]
    harness.upstream.faults()
    harness.worker.runner.health.cooldown.end()
    internals.make_probe_due(breaker)
    breaker.assign_probe([harness.credential_id], [harness.credential_id])
    assert collect_frames(good)
    assert collect_frames(poison)


def test_first_byte_of_a_probe_closes_the_breaker(harness: WorkerHarness):
    breaker = harness.services.breakers["default"]
    record_faults(breaker)
    harness.upstream.pace(chunks=1000, chunk_delay=0.2)
    mailbox = harness.enqueue(body=streaming_body(), stream=True)
    internals.make_probe_due(breaker)
    breaker.assign_probe([harness.credential_id], [harness.credential_id])
    assert mailbox.get(30)
    eventually(lambda: breaker.allows("anybody"))
    assert harness.upstream.counters()["in_flight"] == 1


def test_retry_after_of_a_failing_upstream_gives_only_a_short_cooldown(harness: WorkerHarness):
    health = harness.worker.runner.health
    outcome = classify_error_response(1, 503, {"retry-after": "3600"}, b"")
    for number in range(9):
        health.begin_cooldown(outcome, build_request(f"req_{number}"))
    assert 0 < health.cooldown.remaining() <= MAX_UNPROVEN_SECONDS * 1.25


def test_breaker_stays_open_through_an_outage_of_hours(redis: Redis):
    breaker = build_breaker(redis)
    record_faults(breaker)
    redis.hset(keys.breaker("p"), mapping={"failed_probes": 2000, "probe_at": 0})
    successor = build_breaker(redis, "b")
    successor.sync(stored_breaker(redis), time.monotonic())
    successor.probing_credential = "c2"
    successor.record_fault("c2", "r1", "unreachable", 10)
    assert int(stored_breaker(redis)["failed_probes"]) == 2001
    assert 0 < float(stored_breaker(redis)["probe_at"]) - time.time() < 13
