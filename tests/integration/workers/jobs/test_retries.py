"""Another attempt is another credential: failed requests wait for one that has not tried them."""

import json
import time

import pytest
from redis import Redis

from shared import keys
from shared.errors import LeaseLost
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker, key_of
from workers.jobs.rq_bookkeeping import Requeued


@pytest.fixture
def workers(pool: SimulatedPool) -> list[SimulatedWorker]:
    """Three workers, each with an active credential."""
    pool.redis.hset(keys.credentials("default"), mapping={f"c{number}": "active" for number in (1, 2, 3)})
    return [pool.worker(number) for number in (1, 2, 3)]


def fail_on(worker: SimulatedWorker, job_id: str) -> Requeued:
    assert worker.start() == job_id
    return worker.requeue()


def set_state(redis: Redis, credential_id: str, state: str, until: float = 0) -> None:
    redis.hset(keys.credentials("default"), credential_id, state)
    redis.hset(keys.credential(credential_id), "until", until or "")


def test_credential_that_has_failed_a_request_takes_the_next_one(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("a", 2)
    assert fail_on(workers[0], first) is Requeued.FOR_OTHERS
    assert workers[0].start() == second
    assert workers[1].start() == first
    assert workers[1].started is not None
    assert workers[1].started.tried == " c1:signature:1:0"
    assert pool.queue.count_waiting("default") == 0


def test_request_waits_for_others_that_are_busy(pool: SimulatedPool, workers: list[SimulatedWorker]):
    pool.enqueue("a", 2)
    workers[1].start()
    workers[2].start()
    (late,) = pool.enqueue("a")
    assert fail_on(workers[0], late) is Requeued.FOR_OTHERS
    for _ in range(3):
        assert workers[0].start() == ""
    assert pool.queue.count_waiting("default") == 1
    assert workers[2].finish_and_start() == late


def test_waiting_retry_goes_before_other_requests(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, *_ = pool.enqueue("a", 3)
    pool.enqueue("b", 3)
    fail_on(workers[0], first)
    assert workers[1].start() == first


def test_oldest_retry_goes_first_however_often_it_has_failed(pool: SimulatedPool, workers: list[SimulatedWorker]):
    """Several poisoned requests by turns would pause the credentials that each has met for as long as all take."""
    first, second = pool.enqueue("a", 2)
    assert [fail_on(workers[0], job_id) for job_id in (first, second)] == [Requeued.FOR_OTHERS] * 2
    assert fail_on(workers[1], first) is Requeued.FOR_OTHERS
    assert workers[2].start() == first


def test_batch_retry_leaves_interactive_requests_their_turn(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("bulk", 2, band="batch")
    fail_on(workers[0], first)
    (interactive,) = pool.enqueue("a")
    assert workers[1].start() == interactive
    assert [workers[1].finish_and_start(), workers[1].finish_and_start()] == [first, second]
    assert pool.queue.count_waiting("default") == 0


def test_interactive_retry_goes_before_batch_retries(pool: SimulatedPool, workers: list[SimulatedWorker]):
    for job_id in pool.enqueue("bulk", 20, band="batch"):
        fail_on(workers[0], job_id)
    (interactive,) = pool.enqueue("a")
    fail_on(workers[0], interactive)
    assert workers[1].start() == interactive


def test_batch_retry_that_has_waited_long_is_not_starved(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (due,) = pool.enqueue("bulk", band="batch", enqueued_at=time.time() - 60)
    fail_on(workers[0], due)
    pool.enqueue("a", 30)
    started = [workers[1].start(), *(workers[1].finish_and_start() for _ in range(20))]
    assert started.index(due) == pool.batch_policy.interval - 1


@pytest.mark.parametrize("state", ["dead", "disabled", "cooling", "unleased"])
def test_request_goes_back_to_the_same_credential_when_no_other_can_take_it(
    pool: SimulatedPool, workers: list[SimulatedWorker], state: str
):
    for worker in workers[1:]:
        if state == "unleased":
            pool.redis.delete(worker.lease.key)
        else:
            set_state(pool.redis, worker.lease.credential_id, state, until=time.time() + 3600)
    (job_id,) = pool.enqueue("a")
    assert fail_on(workers[0], job_id) is Requeued.FOR_TRIED
    assert workers[0].start() == job_id


def test_request_waits_for_a_cooldown_that_ends_in_time(pool: SimulatedPool, workers: list[SimulatedWorker]):
    set_state(pool.redis, "c2", "disabled")
    set_state(pool.redis, "c3", "cooling", until=time.time() + 20)
    (job_id,) = pool.enqueue("a")
    assert fail_on(workers[0], job_id) is Requeued.FOR_OTHERS
    assert workers[0].start() == ""
    set_state(pool.redis, "c3", "dead")
    assert workers[0].start() == job_id


def test_request_that_all_have_tried_waits_for_its_backoff(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (job_id,) = pool.enqueue("a")
    for worker in workers[:2]:
        assert fail_on(worker, job_id) is Requeued.FOR_OTHERS
    assert workers[2].start() == job_id
    assert workers[2].requeue(retry_delay=60.0) is Requeued.FOR_TRIED
    assert [worker.start() for worker in workers] == ["", "", ""]
    pool.redis.hset(f"rq:job:{job_id}", "farm_retry_at", time.time() - 1)
    assert workers[0].start() == job_id


def test_request_is_left_alone_when_only_others_would_do(pool: SimulatedPool, workers: list[SimulatedWorker]):
    for credential_id in ("c2", "c3"):
        set_state(pool.redis, credential_id, "dead")
    (job_id,) = pool.enqueue("a")
    assert workers[0].start() == job_id
    assert workers[0].requeue(only_others=True) is Requeued.NOBODY_LEFT
    assert pool.redis.zcard("rq:wip:chat:default") == 1
    assert workers[0].started is not None
    pool.bookkeeping.fail(workers[0].rq, workers[0].started, "why")
    assert pool.redis.zcard("rq:wip:chat:default") == 0
    assert pool.redis.exists(keys.body(job_id)) == 0


def test_an_idle_credential_that_has_not_tried_is_woken(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (job_id,) = pool.enqueue("a")
    fail_on(workers[0], job_id)
    assert workers[0].start() == ""
    assert workers[1].start() == job_id
    assert workers[2].start() == ""
    with pool.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(*(worker.rq.pubsub_channel_name for worker in workers))
        for _ in workers:
            pubsub.get_message(timeout=30)
        workers[1].requeue()
        message = pubsub.get_message(timeout=30)
        assert message is not None
        assert (message["channel"], json.loads(message["data"])) == (b"rq:pubsub:default.c3", {"command": "look"})
        assert pubsub.get_message(timeout=0.1) is None


def test_a_worker_looks_at_few_waiting_retries(pool: SimulatedPool, workers: list[SimulatedWorker]):
    for job_id in pool.enqueue("a", 200):
        fail_on(workers[0], job_id)
    (fresh,) = pool.enqueue("b")
    pool.redis.config_resetstat()
    assert workers[0].start() == fresh
    calls = pool.redis.info("commandstats")
    assert calls["cmdstat_hmget"]["calls"] < 30
    assert calls["cmdstat_hscan"]["calls"] < 30


@pytest.mark.parametrize("band", ["interactive", "batch"])
def test_withdrawn_retry_leaves_nothing(pool: SimulatedPool, workers: list[SimulatedWorker], band: str):
    (job_id,) = pool.enqueue("a", band=band)
    fail_on(workers[0], job_id)
    assert pool.queue.withdraw("default", job_id)
    assert pool.redis.keys(f"*{job_id}*") == []
    assert pool.redis.exists(keys.waiting_retries("default"), keys.waiting_batch_retries("default")) == 0
    assert [worker.start() for worker in workers] == ["", "", ""]
    assert pool.queue.count_waiting("default") == 0


def test_retry_that_an_operator_has_deleted_is_passed_over(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("a", 2)
    fail_on(workers[0], first)
    pool.redis.delete(f"rq:job:{first}")
    assert workers[1].start() == second
    assert pool.queue.count_waiting("default") == 0


def test_job_that_rq_has_put_into_the_batch_queue_is_served_beside_a_retry(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    (job_id,) = pool.enqueue("a")
    fail_on(workers[0], job_id)
    foreign = pool.bookkeeping.queues["batch"].enqueue("builtins.print", "hello", job_id="foreign")
    assert [workers[0].start(), workers[0].start()].count(foreign.id) == 1
    assert workers[1].start() == job_id


def test_retry_whose_worker_has_lost_its_lease_waits_again(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (job_id,) = pool.enqueue("a")
    fail_on(workers[0], job_id)
    execution = pool.bookkeeping.create_execution(workers[1].rq)
    pool.bookkeeping.begin(workers[1].rq, execution, 60, workers[1].lease)
    pool.redis.set(workers[1].lease.key, "another:9")
    with pytest.raises(LeaseLost):
        pool.bookkeeping.begin(workers[1].rq, execution, 60, workers[1].lease)
    assert workers[0].start() == ""
    assert workers[2].start() == job_id


def test_attempts_that_fail_at_once_are_not_free(pool: SimulatedPool, workers: list[SimulatedWorker]):
    """A key whose requests all fail starts no more of them than others of theirs, which take a second each."""
    pool.enqueue("good", 200)
    pool.enqueue("poison", 200)
    worker = workers[0]
    starts = []
    job_id = worker.start()
    for _ in range(60):
        starts.append(key_of(job_id))
        assert worker.started is not None
        if starts[-1] == "poison":
            pool.bookkeeping.fail(worker.rq, worker.started, "refused")
            job_id = worker.start()
        else:
            job_id = worker.finish_and_start(seconds=1.0)
    assert starts.count("poison") <= 35


def test_retries_are_charged_to_their_key(pool: SimulatedPool, workers: list[SimulatedWorker]):
    """Three attempts of one request cost as much as three requests."""
    first, *_ = pool.enqueue("poison", 20)
    for worker in workers[:2]:
        fail_on(worker, first)
    assert workers[2].start() == first
    assert workers[2].started is not None
    pool.bookkeeping.fail(workers[2].rq, workers[2].started, "refused")
    pool.enqueue("good", 20)
    served = [key_of(workers[2].start())]
    served += [key_of(workers[2].finish_and_start(seconds=1.0)) for _ in range(3)]
    assert served.count("good") >= 3
