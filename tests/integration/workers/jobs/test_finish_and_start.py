"""A worker finishes a job and starts the next in one step, as stock RQ does in many."""

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from shared import keys
from shared.errors import BreakerOpen, LeaseLost
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_request
from tests.doubles import HEARTBEAT_TTL_SECONDS
from tests.integration.workers.jobs.bookkeeping_harness import TwoJobHarness, snapshot, start_with_stock_rq


def test_finish_and_start_leaves_what_stock_rq_leaves(redis: Redis):
    def ours(harness: TwoJobHarness) -> None:
        harness.finish_and_start(harness.start())

    def theirs(harness: TwoJobHarness) -> None:
        job, execution = start_with_stock_rq(harness)
        job.started_at = job.ended_at = now()
        registry = harness.queue.started_job_registry
        harness.worker.handle_job_success(
            job=job, queue=harness.queue, started_job_registry=registry, execution=execution
        )
        harness.pop()
        job = Job.fetch("req_2", connection=redis, serializer=JSONSerializer)
        harness.worker.prepare_execution(job)
        harness.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)

    left = []
    for work in (ours, theirs):
        harness = TwoJobHarness(redis)
        work(harness)
        redis.delete(keys.body("req_1"))
        left.append(snapshot(redis))
    assert left[0] == left[1]
    assert left[0]["rq:worker:default.c1"]["state"] == "busy"
    assert left[0]["rq:job:req_2"]["status"] == "started"


def test_finish_and_start_is_one_round_trip(redis: Redis):
    harness = TwoJobHarness(redis)
    started = harness.start()
    redis.config_resetstat()
    second = harness.finish_and_start(started)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert second is not None
    assert (second.job_id, second.body, second.other_executions) == ("req_2", b"the second body", 0)
    assert redis.keys("*req_1*") == []
    assert list(harness.worker.executions.values()) == [second.execution]


def test_finish_and_start_without_a_next_job_leaves_the_worker_idle(redis: Redis):
    harness = TwoJobHarness(redis)
    second = harness.finish_and_start(harness.start())
    assert second is not None
    assert harness.finish_and_start(second, ok=False) is None
    assert redis.hget(harness.worker.key, "state") == b"idle"
    assert redis.hget(harness.worker.key, "failed_job_count") == b"1"
    assert redis.keys("*req_*") == []


def test_repeated_finish_and_start_starts_the_same_job(redis: Redis):
    harness = TwoJobHarness(redis)
    RelayQueue(redis, 10).enqueue(build_request("req_3"), b"x")
    started = harness.start()
    execution = harness.bookkeeping.create_execution(harness.worker)
    replies = [
        harness.bookkeeping.finish_and_begin(
            harness.worker, started, execution, HEARTBEAT_TTL_SECONDS, harness.lease, ok=True
        )
        for _ in range(2)
    ]
    assert replies[0] == replies[1]
    assert replies[0] is not None
    assert (replies[0].job_id, replies[0].other_executions) == ("req_2", 0)
    assert redis.lrange(harness.queue.key, 0, -1) == [b"req_3"]
    assert redis.hget(harness.worker.key, "successful_job_count") == b"1"


def test_finish_and_start_without_the_lease_starts_nothing(redis: Redis):
    harness = TwoJobHarness(redis)
    started = harness.start()
    redis.set(harness.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        harness.finish_and_start(started)
    assert not redis.exists("rq:job:req_1")
    assert redis.lrange(harness.queue.key, 0, -1) == [b"req_2"]


def test_finish_and_start_starts_nothing_while_the_breaker_is_open(redis: Redis):
    harness = TwoJobHarness(redis)
    started = harness.start()
    redis.hset(keys.breaker("default"), "probe_at", 0)
    with pytest.raises(BreakerOpen):
        harness.finish_and_start(started)
    assert not redis.exists("rq:job:req_1")
    assert redis.lrange(harness.queue.key, 0, -1) == [b"req_2"]


def test_finish_and_start_skips_jobs_without_a_waiting_caller(redis: Redis):
    harness = TwoJobHarness(redis)
    queue = RelayQueue(redis, 10)
    queue.enqueue(build_request("req_dead", front="gone"), b"x")
    queue.enqueue(build_request("req_last"), b"x")
    redis.set(keys.front_gone("gone"), 1)
    redis.delete("rq:job:req_2")
    second = harness.finish_and_start(harness.start())
    assert second is not None
    assert second.job_id == "req_last"
    assert redis.keys("*req_dead*") + redis.keys("*req_2*") == []


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 1_000_000])
def test_large_body_is_read_apart_from_the_reply_that_all_jobs_wait_for(redis: Redis, size: int):
    harness = TwoJobHarness(redis)
    redis.set(keys.body("req_2"), b"x" * size)
    started = harness.finish_and_start(harness.start())
    assert started is not None
    assert started.body == b"x" * size


def test_body_that_has_expired_is_none(redis: Redis):
    harness = TwoJobHarness(redis)
    redis.delete(keys.body("req_2"))
    started = harness.finish_and_start(harness.start())
    assert started is not None
    assert started.body is None
