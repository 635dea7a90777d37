"""The pool's circuit breaker: an upstream that is down blames no account and eats no request."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Head
from shared.redis_connection.client import decoded
from tests.integration.workshop import BODY, Workshop, answer
from tests.waiting import eventually
from workers.attempt.upstream_errors import error_answer
from workers.credentials import circuit_breaker as module
from workers.credentials.circuit_breaker import FAULTS, Breaker
from workers.worker.credential_health import UPSTREAM_PAUSE


def breaker(redis: Redis, process: str = "a") -> Breaker:
    return Breaker(redis, "p", process, Counters())


def record(redis: Redis) -> dict[str, str]:
    return decoded(redis.hgetall(keys.breaker("p")))


def fail(one: Breaker, times: int = FAULTS, credentials: int = 3, requests: int = 2) -> None:
    for i in range(times):
        one.fault(f"c{i % credentials}", f"r{i % requests}", "unreachable", 10)


def test_faults_in_a_row_of_several_accounts_and_requests_open_it(redis: Redis):
    one = breaker(redis)
    fail(one, FAULTS - 1)
    assert one.lets("c9")
    fail(one, 1)
    assert not one.lets("c9")
    assert record(redis)["reason"] == "unreachable"


@pytest.mark.parametrize(("credentials", "requests"), [(2, 2), (3, 1)])
def test_one_account_or_one_request_that_fails_says_nothing_of_the_upstream(
    redis: Redis, credentials: int, requests: int
):
    one = breaker(redis)
    fail(one, 50, credentials, requests)
    assert one.lets("c9")


def test_an_answer_in_between_starts_the_count_anew(redis: Redis):
    one = breaker(redis)
    for _ in range(5):
        fail(one, FAULTS - 1)
        one.answer(time.time())
    assert one.lets("c9")


def test_an_answer_to_what_was_asked_before_it_opened_says_nothing(redis: Redis):
    one = breaker(redis)
    before = time.time()
    fail(one)
    one.answer(before)
    assert not one.lets("c9")


def test_every_process_learns_it_and_one_worker_of_all_probes(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST", 0.0)
    one, other = breaker(redis), breaker(redis, "b")
    fail(one)
    other.learn(record(redis), time.monotonic())
    assert not other.lets("d1")
    assert one.tend(["c1", "c2"], ["c1", "c2"]) == "c1"
    assert other.tend(["d1"], ["d1"]) == ""
    assert (one.lets("c1"), one.lets("c2"), other.lets("d1")) == (True, False, False)
    one.answer(time.time())
    assert (record(redis), redis.exists(keys.probe("p"))) == ({}, 0)
    other.learn(record(redis), time.monotonic())
    assert other.lets("d1")


def test_a_probe_that_fails_makes_the_next_one_wait_longer(redis: Redis):
    one = breaker(redis)
    fail(one)
    waits = []
    for _ in range(6):
        one._probe_at = 0.0
        assert one.tend(["c1"], ["c1"]) == "c1"
        one.fault("c1", "r1", "unreachable", 10)
        waits.append(float(record(redis)["probe_at"]) - time.time())
    assert waits[1] > waits[0]
    assert max(waits) <= module.LONGEST * 1.25
    assert not redis.exists(keys.probe("p"))


def test_a_probe_whose_worker_has_gone_is_given_to_another(redis: Redis):
    one = breaker(redis)
    fail(one)
    one._probe_at = 0.0
    one.tend(["c1"], ["c1"])
    assert one.tend(["c2"], ["c2"]) == ""
    redis.delete(keys.probe("p"))
    assert one.tend(["c2"], ["c2"]) == "c2"


def test_a_worker_that_is_busy_with_something_old_is_no_probe_and_one_that_probes_may_be_busy(redis: Redis):
    one = breaker(redis)
    fail(one)
    one._probe_at = 0.0
    assert one.tend(["old", "c1"], ["c1"]) == "c1"
    assert one.tend(["old", "c1"], []) == ""
    assert one.probing == "c1"


def test_what_was_read_before_our_own_word_counts_for_nothing(redis: Redis):
    one = breaker(redis)
    before = time.monotonic()
    fail(one)
    one.learn({}, before)
    assert not one.lets("c9")


def test_requests_wait_for_an_upstream_that_is_down_and_pay_for_no_probe(workshop: Workshop):
    gate = workshop.around.breakers["default"]
    workshop.upstream.faults(server_error=1)
    fail(gate)
    mailbox = workshop.ask()
    for probes in range(1, 4):
        gate._probe_at = 0.0
        gate.tend([workshop.id], [workshop.id])
        eventually(lambda p=probes: workshop.upstream.counters().get("fault_server_error", 0) >= p)
        eventually(lambda: workshop.queue.waiting("default") == 1)
        workshop.worker.serving.condition.pauses.end()
    assert workshop.redis.hget("rq:job:req_1", "number_of_retries") == b"0"
    workshop.upstream.faults()
    gate._probe_at = 0.0
    gate.tend([workshop.id], [workshop.id])
    assert Head.decode(answer(mailbox)[0].payload).attempts == 1
    eventually(lambda: gate.lets("anybody"), within=1)


def test_a_worker_that_does_not_know_yet_begins_no_job(workshop: Workshop):
    workshop.redis.hset(keys.breaker("default"), mapping={"probe_at": "0", "failed_probes": "0", "reason": "x"})
    mailbox = workshop.ask()
    eventually(lambda: workshop.around.breakers["default"].is_open)
    assert workshop.queue.waiting("default") == 1
    assert workshop.upstream.counters()["served"] == 0
    workshop.around.breakers["default"].answer(time.time())
    assert answer(mailbox)


def test_a_request_that_fails_everywhere_does_not_hold_up_the_others(workshop: Workshop):
    gate = workshop.around.breakers["default"]
    workshop.upstream.faults(server_error=1)
    fail(gate)
    poison, good = workshop.ask("req_poison"), workshop.ask("req_good")
    gate._probe_at = 0.0
    gate.tend([workshop.id], [workshop.id])
    eventually(lambda: workshop.upstream.counters().get("fault_server_error", 0) == 1)
    eventually(lambda: workshop.queue.waiting("default") == 2)
    assert workshop.redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_good", b"req_poison"]
    workshop.upstream.faults()
    workshop.worker.serving.condition.pauses.end()
    gate._probe_at = 0.0
    gate.tend([workshop.id], [workshop.id])
    assert answer(good)
    assert answer(poison)


def test_the_first_byte_of_a_probe_closes_it(workshop: Workshop):
    gate = workshop.around.breakers["default"]
    fail(gate)
    workshop.upstream.pace(chunks=20, chunk_delay=0.2)
    body = BODY.replace(b'{"model"', b'{"stream": true, "model"')
    mailbox = workshop.ask(body=body, stream=True)
    gate._probe_at = 0.0
    gate.tend([workshop.id], [workshop.id])
    assert mailbox.get(5)
    eventually(lambda: gate.lets("anybody"), within=1)
    assert workshop.upstream.counters()["in_flight"] == 1


def test_a_retry_after_of_an_upstream_that_fails_pauses_no_account_for_long(workshop: Workshop):
    condition = workshop.worker.serving.condition
    failed = error_answer(1, 503, {"retry-after": "3600"}, b"")
    condition.begin_pause(failed)
    assert condition.pauses.left() <= UPSTREAM_PAUSE
