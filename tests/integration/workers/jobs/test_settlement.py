"""Jobs are settled once, despite lost Redis replies, dead workers and deleted jobs."""

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.observability.request_log import LogEntry, LogFilter, RequestLog
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from workers.jobs.job_records import JobCost


def codes(redis: Redis) -> list[str]:
    """Error codes in the request log, oldest first."""
    return [logged.entry.code for logged in RequestLog(redis).read_newest_first(LogFilter())][::-1]


def cost_logged_as(code: str) -> JobCost:
    return JobCost(entry=LogEntry("req", "k", code=code).encode())


def test_repeated_start_after_a_cancel_starts_the_next_job(pool: SimulatedPool):
    pool.enqueue("a", 2)
    worker = pool.worker()
    execution = pool.bookkeeping.create_execution(worker.rq)
    first = pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease)
    assert first is not None
    assert pool.queue.cancel("default", first.job_id) == "stopping"
    second = pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease)
    assert second is not None
    assert (second.job_id, second.other_executions) == ("req_a_2", 0)
    assert pool.redis.keys(f"*{first.job_id}*") == []
    assert pool.redis.zcard("rq:wip:chat:default") == 1


def test_job_that_rq_cancelled_while_it_waited_is_not_started(pool: SimulatedPool):
    pool.enqueue("a", 2)
    worker = pool.worker()
    Job.fetch("req_a_1", connection=pool.redis, serializer=JSONSerializer).cancel()
    started = pool.bookkeeping.begin(worker.rq, pool.bookkeeping.create_execution(worker.rq), 60, worker.lease)
    assert started is not None
    assert started.job_id == "req_a_2"
    assert pool.redis.keys("*req_a_1*") == []


def test_repeated_start_without_a_job_records_the_worker_as_idle(pool: SimulatedPool):
    pool.enqueue("a")
    worker = pool.worker()
    execution = pool.bookkeeping.create_execution(worker.rq)
    assert pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease)
    pool.queue.cancel("default", "req_a_1")
    assert pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease) is None
    assert pool.redis.zcard(keys.idle_workers("default")) == 1


def test_failure_that_was_settled_is_not_settled_again_by_recovery(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
):
    pool.enqueue("a")
    worker = pool.worker()
    worker.start()
    monkeypatch.setattr(worker.rq, "handle_job_failure", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool.bookkeeping.fail(worker.rq, worker.started, "why", cost_logged_as("upstream_eof"))
    assert pool.bookkeeping.finish(worker.rq, worker.started, ok=False, cost=cost_logged_as("worker_lost"))
    assert codes(pool.redis) == ["upstream_eof"]


def test_fail_of_a_lost_execution_settles_nothing_of_the_next(pool: SimulatedPool):
    (job_id,) = pool.enqueue("a")
    first, second = pool.worker(1), pool.worker(2)
    first.start()
    first.requeue()
    assert second.start() == job_id
    pool.bookkeeping.fail(first.rq, first.started, "late", cost_logged_as("late"))
    assert codes(pool.redis) == []
    assert pool.redis.get(keys.body(job_id)) == b"x"


def test_failed_job_cannot_be_cancelled(pool: SimulatedPool):
    (job_id,) = pool.enqueue("a")
    worker = pool.worker()
    worker.start()
    pool.bookkeeping.fail(worker.rq, worker.started, "why")
    assert pool.queue.cancel("default", job_id) == "gone"
    assert Job.exists(job_id, connection=pool.redis)


def test_requeue_logs_a_caller_who_left_during_the_failed_attempt(pool: SimulatedPool):
    (job_id,) = pool.enqueue("a")
    worker = pool.worker()
    worker.start()
    pool.queue.cancel("default", job_id)
    client_gone = LogEntry("req", "k", code="client_gone").encode()
    assert not worker.requeue(entry_if_cancelled=client_gone)
    assert codes(pool.redis) == ["client_gone"]


def test_worker_whose_running_job_was_deleted_becomes_idle(pool: SimulatedPool):
    (job_id,) = pool.enqueue("b", band="batch")
    worker = pool.worker()
    worker.rq.register_birth()
    worker.start()
    pool.redis.delete(f"rq:job:{job_id}")
    assert worker.finish_and_start() == ""
    assert pool.redis.hget(worker.rq.key, "state") == b"idle"
    assert pool.redis.zcard("rq:wip:batch:default") == 0
