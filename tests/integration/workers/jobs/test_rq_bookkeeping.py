"""The bookkeeping of jobs leaves in Redis what stock RQ leaves."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq.utils import now

from shared import keys
from shared.errors import LeaseLost
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request
from tests.doubles import HEARTBEAT_TTL_SECONDS
from tests.integration.workers.jobs.bookkeeping_harness import FAILED, BookkeepingHarness, snapshot, start_with_stock_rq
from workers.jobs.rq_bookkeeping import MAX_FAILED_JOBS


def compare(
    redis: Redis, ours: Callable[[BookkeepingHarness], Any], theirs: Callable[[BookkeepingHarness], Any]
) -> dict[str, Any]:
    harness = BookkeepingHarness(redis)
    ours(harness)
    redis.delete(keys.body("req_1"))
    left = snapshot(redis)
    harness = BookkeepingHarness(redis)
    theirs(harness)
    assert left == snapshot(redis)
    return left


def test_started_job_looks_as_stock_rq_leaves_it(redis: Redis):
    left = compare(redis, lambda harness: harness.start(), start_with_stock_rq)
    assert left["rq:worker:default.c1"]["state"] == "busy"
    assert left["rq:job:req_1"]["status"] == "started"


def test_started_jobs_keys_have_the_ttls_of_stock_rq(redis: Redis):
    def lifetimes(start: Callable[[BookkeepingHarness], Any]) -> dict[str, int]:
        start(BookkeepingHarness(redis))
        ttls = {key.decode().split(":req_1")[0]: redis.ttl(key) for key in redis.keys("rq:*")}
        return {name: ttl for name, ttl in ttls.items() if "worker:default.c1" not in name or "executions" in name}

    ours, theirs = lifetimes(lambda harness: harness.start()), lifetimes(start_with_stock_rq)
    assert ours.keys() == theirs.keys()
    assert {name: ttl for name, ttl in ours.items() if abs(ttl - theirs[name]) > 2} == {}


def test_finished_job_leaves_what_stock_rq_leaves(redis: Redis):
    def stock(harness: BookkeepingHarness) -> None:
        job, execution = start_with_stock_rq(harness)
        job.started_at = job.ended_at = now()
        registry = harness.queue.started_job_registry
        harness.worker.handle_job_success(
            job=job, queue=harness.queue, started_job_registry=registry, execution=execution
        )
        harness.worker.set_state("idle")

    left = compare(redis, lambda harness: harness.bookkeeping.finish(harness.worker, harness.start(), ok=True), stock)
    assert left["rq:worker:default.c1"]["successful_job_count"] == "1"
    assert "rq:job:req_1" not in left


def test_finished_job_leaves_no_body(redis: Redis):
    harness = BookkeepingHarness(redis)
    started = harness.start()
    assert (started.body, started.retries, started.other_executions) == (b"the body", 0, 0)
    assert started.request is not None
    harness.bookkeeping.finish(harness.worker, started, ok=True)
    assert redis.keys("*req_1*") == []
    assert redis.get(keys.served_jobs("default")) == b"1"
    assert harness.worker.executions == {}


def test_failed_job_is_kept_for_the_dashboard_without_its_body(redis: Redis):
    harness = BookkeepingHarness(redis)
    harness.bookkeeping.fail(harness.worker, harness.start(), "upstream_error after 4 attempts")
    assert harness.queue.failed_job_registry.get_job_ids() == ["req_1"]
    assert harness.job().latest_result().exc_string == "upstream_error after 4 attempts"
    assert redis.hget("rq:worker:default.c1", "state") == b"idle"
    assert not redis.exists(keys.body("req_1"))
    assert harness.queue.started_job_registry.count == 0


def test_failed_jobs_are_bounded_in_number(redis: Redis):
    harness = BookkeepingHarness(redis)
    registry = harness.queue.failed_job_registry
    redis.zadd(registry.key, {f"old_{i}": 2e9 + i for i in range(MAX_FAILED_JOBS + 5)})
    harness.bookkeeping.fail(harness.worker, harness.start(), "x")
    assert redis.zcard(registry.key) == MAX_FAILED_JOBS


def test_requeued_job_waits_first_in_the_queue_with_its_body(redis: Redis):
    harness = BookkeepingHarness(redis)
    RelayQueue(redis, 10).enqueue(build_request("req_2"), b"x")
    assert harness.bookkeeping.requeue(harness.worker, harness.start(), FAILED)
    assert harness.waiting_jobs() == [b"req_1", b"req_2"]
    job = harness.job()
    assert (job.get_status(), job.number_of_retries, job.worker_name) == ("queued", 1, None)
    assert redis.get(keys.body("req_1")) == b"the body"
    assert harness.queue.started_job_registry.count == 0
    harness.pop()
    assert harness.start().retries == 1


def test_requeue_of_a_deleted_job_does_not_bring_it_back(redis: Redis):
    harness = BookkeepingHarness(redis)
    started = harness.start()
    redis.delete("rq:job:req_1")
    assert not harness.bookkeeping.requeue(harness.worker, started, FAILED)
    assert harness.queue.count == 0


def test_withdrawn_job_is_not_started(redis: Redis):
    harness = BookkeepingHarness(redis)
    redis.delete("rq:job:req_1")
    assert harness.try_to_start("req_1") is None
    assert redis.keys("*req_1*") == []
    assert redis.llen(harness.queue.intermediate_queue_key) == 0
    assert redis.hget("rq:worker:default.c1", "state") == b"idle"


def test_start_reports_another_job_that_runs_on_the_worker(redis: Redis):
    harness = BookkeepingHarness(redis)
    harness.start()
    RelayQueue(redis, 10).enqueue(build_request("req_2"), b"x")
    harness.pop()
    second = harness.try_to_start("req_2")
    assert second is not None
    assert second.other_executions == 1


def test_start_and_finish_are_one_round_trip_each(redis: Redis):
    harness = BookkeepingHarness(redis)
    harness.bookkeeping.finish(harness.worker, harness.start(), ok=True)
    harness = BookkeepingHarness(redis)
    redis.config_resetstat()
    harness.bookkeeping.finish(harness.worker, harness.start(), ok=True)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_foreign_job_is_started_without_a_request(redis: Redis):
    harness = BookkeepingHarness(redis)
    foreign = harness.queue.enqueue("builtins.print", "hello", job_id="foreign")
    harness.pop()
    started = harness.try_to_start(foreign.id)
    assert started is not None
    assert started.request is None


@pytest.mark.parametrize("ok", [True, False])
def test_finish_counts_the_job_by_its_outcome(redis: Redis, ok: bool):
    harness = BookkeepingHarness(redis)
    harness.bookkeeping.finish(harness.worker, harness.start(), ok=ok)
    name = "successful_job_count" if ok else "failed_job_count"
    assert redis.hget("rq:worker:default.c1", name) == b"1"


def test_start_without_the_lease_puts_the_job_back_first(redis: Redis):
    harness = BookkeepingHarness(redis)
    redis.set(harness.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        harness.try_to_start("req_1")
    assert harness.waiting_jobs() == [b"req_1"]
    assert redis.hget("rq:job:req_1", "status") == b"queued"
    assert redis.scard(harness.worker.executions_key) == 0


def test_job_that_was_put_back_after_the_pop_is_started_once(redis: Redis):
    harness = BookkeepingHarness(redis)
    redis.lmove(harness.queue.intermediate_queue_key, harness.queue.key)
    assert harness.start().job_id == "req_1"
    assert harness.queue.count == 0
    assert harness.try_to_start("req_1") is None
    assert redis.get(keys.body("req_1")) == b"the body"


def test_start_requeue_and_finish_are_idempotent(redis: Redis):
    harness = BookkeepingHarness(redis)
    execution = harness.bookkeeping.create_execution(harness.worker, "req_1")
    started = [
        harness.bookkeeping.begin(harness.worker, execution, HEARTBEAT_TTL_SECONDS, harness.lease) for _ in range(2)
    ]
    assert started[0] == started[1]
    assert started[0] is not None
    assert started[0].other_executions == 0
    for _ in range(2):
        harness.bookkeeping.requeue(harness.worker, started[0], FAILED)
    assert harness.waiting_jobs() == [b"req_1"]
    assert redis.hget("rq:job:req_1", "number_of_retries") == b"1"
    harness.pop()
    retried = harness.start()
    for _ in range(2):
        harness.bookkeeping.finish(harness.worker, retried, ok=True)
    assert redis.hget(harness.worker.key, "successful_job_count") == b"1"
    assert redis.get(keys.served_jobs("default")) == b"1"


def test_job_of_a_dead_front_is_dropped(redis: Redis):
    harness = BookkeepingHarness(redis)
    redis.set(keys.front_gone("p"), 1)
    assert harness.try_to_start("req_1") is None
    assert redis.keys("*req_1*") == []


def test_requeue_drops_a_job_whose_caller_left_between_attempts(redis: Redis):
    harness = BookkeepingHarness(redis)
    started = harness.start()
    assert RelayQueue(redis, 10).cancel("default", "req_1") == "stopping"
    assert not harness.bookkeeping.requeue(harness.worker, started, FAILED)
    assert redis.keys("*req_1*") == []
    assert harness.queue.count == 0


def test_repeated_start_without_the_lease_leaves_nothing_behind(redis: Redis):
    harness = BookkeepingHarness(redis)
    execution = harness.bookkeeping.create_execution(harness.worker, "req_1")
    assert harness.bookkeeping.begin(harness.worker, execution, HEARTBEAT_TTL_SECONDS, harness.lease)
    redis.set(harness.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        harness.bookkeeping.begin(harness.worker, execution, HEARTBEAT_TTL_SECONDS, harness.lease)
    assert harness.waiting_jobs() == [b"req_1"]
    assert redis.zcard("rq:wip:chat:default") == 0
    assert redis.scard(harness.worker.executions_key) == 0


def test_finish_of_a_requeued_execution_changes_nothing(redis: Redis):
    harness = BookkeepingHarness(redis)
    started = harness.start()
    assert harness.bookkeeping.requeue(harness.worker, started, FAILED)
    assert not harness.bookkeeping.finish(harness.worker, started, ok=False)
    assert redis.exists("rq:job:req_1")
    assert harness.waiting_jobs() == [b"req_1"]


def test_fail_can_be_retried_when_rq_could_not_record_it(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    harness = BookkeepingHarness(redis)
    started = harness.start()
    monkeypatch.setattr(harness.worker, "handle_job_failure", lambda *_, **__: None)
    with pytest.raises(RedisError):
        harness.bookkeeping.fail(harness.worker, started, "reason")
    monkeypatch.undo()
    harness.bookkeeping.fail(harness.worker, started, "reason")
    assert redis.zcard("rq:wip:chat:default") == 0
