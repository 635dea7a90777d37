"""A worker whose account has reached a limit of its own hands back what it was given, and does not count as idle."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.errors import AccountResting
from shared.pacing.account_limits import AccountLimits
from shared.pacing.scripts import CountRequest
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from workers.jobs.pace import AccountPace

CHAT_QUEUE = "rq:queue:chat:default"


def use_up(redis: Redis) -> AccountPace:
    """The pace of an account that has used up its limit of one request."""
    redis.rpush(f"{keys.pace('c1')}:rpm", "0 0", f"{1000 * time.time():.0f} 1")
    return AccountPace(AccountLimits(rpm=1), keys.pace("c1"), CountRequest(redis))


def test_popped_job_goes_back_and_worker_leaves_the_idle(redis: Redis):
    pool = SimulatedPool(redis)
    worker = pool.worker()
    assert worker.start() == ""
    assert redis.zcard(keys.idle_workers("default")) == 1
    pace = use_up(redis)
    (job_id,) = pool.enqueue("a")
    assert redis.lmove(CHAT_QUEUE, f"{CHAT_QUEUE}:intermediate").decode() == job_id
    execution = pool.bookkeeping.create_execution(worker.rq, job_id)
    with pytest.raises(AccountResting, match="account_rpm"):
        pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease, pace=pace)
    assert redis.lrange(CHAT_QUEUE, 0, -1) == [job_id.encode()]
    assert redis.zcard(keys.idle_workers("default")) == 0


def test_limit_set_while_a_job_runs_holds_for_the_next(redis: Redis):
    pool = SimulatedPool(redis)
    worker = pool.worker()
    running, waiting = pool.enqueue("a", times=2)
    assert worker.start() == running
    assert worker.started is not None
    pace, execution = use_up(redis), pool.bookkeeping.create_execution(worker.rq)
    with pytest.raises(AccountResting, match="account_rpm"):
        pool.bookkeeping.finish_and_begin(worker.rq, worker.started, execution, 60, worker.lease, ok=True, pace=pace)
    assert redis.lrange(CHAT_QUEUE, 0, -1) == [waiting.encode()]
    assert not redis.exists(f"rq:job:{running}")
