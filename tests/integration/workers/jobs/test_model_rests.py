"""A worker passes over the models for which its credential rests; their jobs wait for one that doesn't (I2)."""

import time
from collections import Counter

import pytest
from redis import Redis

from shared import keys
from shared.errors import NoAllowedJob
from shared.protocol.relay_queue import QueueFull, queue_keys
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker, key_of

CHAT_QUEUE, BATCH_QUEUE = queue_keys("default")


def rest(redis: Redis, credential_id: str, model: str, seconds: float = 100) -> None:
    """As a worker records that a credential rests for a model."""
    redis.hset(keys.resting_models(credential_id), model, time.time() + seconds)
    redis.zadd(keys.resting_by_pool("default"), {model: time.time() + seconds})


@pytest.fixture
def workers(pool: SimulatedPool) -> list[SimulatedWorker]:
    pool.redis.hset(keys.credentials("default"), mapping={f"c{number}": "active" for number in (1, 2, 3)})
    return [pool.worker(number) for number in (1, 2, 3)]


def listen(worker: SimulatedWorker):
    pubsub = worker.pool.redis.pubsub()
    pubsub.subscribe(f"rq:pubsub:{worker.rq.name}")
    assert pubsub.get_message(timeout=5)
    return pubsub


def was_told_to_look(pubsub, within: float = 10.0) -> bool:
    return pubsub.get_message(timeout=within) is not None


def count_structures(redis: Redis) -> int:
    return len(redis.keys("farm:fair:default:aside*")) + len(redis.keys("farm:fair:default:*:*:*"))


def test_job_at_the_head_does_not_block_a_worker_that_rests_for_its_model(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    limited = pool.enqueue("a", 3, model="A")
    (other,) = pool.enqueue("a", model="B")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == other
    assert [workers[1].start(), *(workers[1].finish_and_start() for _ in range(3))] == [*limited, ""]
    assert pool.queue.count_waiting("default") == 0
    assert count_structures(pool.redis) == 0


def test_jobs_of_a_key_and_model_stay_in_order_and_go_before_later_ones(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    first = [*pool.enqueue("a", 2, model="A"), *pool.enqueue("a", model="C")]
    rest(pool.redis, "c1", "A")
    rest(pool.redis, "c1", "C")
    assert workers[0].start() == ""
    later = [*pool.enqueue("a", model="B"), *pool.enqueue("a", model="A")]
    started = [workers[1].start(), *(workers[1].finish_and_start() for _ in range(4))]
    assert started == [*first, *later]


def test_no_idle_worker_is_woken_again_for_a_job_that_is_set_aside(pool: SimulatedPool, workers: list[SimulatedWorker]):
    for number in (1, 2, 3):
        rest(pool.redis, f"c{number}", "A", 50 * number)
    pool.enqueue("a", 5, model="A")
    assert [worker.start() for worker in workers] == ["", "", ""]
    assert pool.redis.llen(CHAT_QUEUE) == 0
    assert pool.redis.llen(BATCH_QUEUE) == 5
    assert pool.queue.count_waiting("default") == 5


def test_idle_worker_is_told_when_its_first_rest_ends(pool: SimulatedPool, workers: list[SimulatedWorker]):
    rest(pool.redis, "c1", "A", 100)
    rest(pool.redis, "c1", "B", 30)
    with pytest.raises(NoAllowedJob) as error:
        workers[0].start_or_raise()
    assert error.value.seconds == pytest.approx(30, abs=5)
    assert pool.redis.zscore(keys.idle_workers("default"), "default.c1") is not None


def test_worker_takes_what_was_set_aside_when_its_rest_is_over(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (job,) = pool.enqueue("a", model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    pool.redis.hset(keys.resting_models("c1"), "A", time.time() - 1)
    pool.redis.zadd(keys.resting_by_pool("default"), {"A": time.time() - 1})
    assert workers[0].start() == job
    assert workers[0].finish_and_start() == ""
    assert pool.redis.exists(keys.resting_by_pool("default")) == 0


def test_idle_worker_that_may_run_the_job_is_told_to_look(pool: SimulatedPool, workers: list[SimulatedWorker]):
    rest(pool.redis, "c1", "A")
    rest(pool.redis, "c2", "A")
    assert [worker.start() for worker in workers] == ["", "", ""]
    able, unable = listen(workers[2]), listen(workers[1])
    jobs = pool.enqueue("a", 2, model="A")
    pool.redis.lmove(CHAT_QUEUE, "rq:queue:chat:default:intermediate")
    assert workers[0].start(jobs[0]) == ""
    assert was_told_to_look(able)
    assert not was_told_to_look(unable, within=0.05)
    assert workers[2].start() == jobs[0]


def test_each_that_starts_such_a_job_tells_the_next_idle_worker(pool: SimulatedPool, workers: list[SimulatedWorker]):
    jobs = pool.enqueue("a", 2, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    pool.redis.zadd(keys.idle_workers("default"), {"default.c2": time.time(), "default.c3": time.time() - 1})
    third = listen(workers[2])
    assert workers[1].start() == jobs[0]
    assert was_told_to_look(third)
    assert workers[2].start() == jobs[1]


def test_job_that_another_worker_has_popped_is_set_aside_once(pool: SimulatedPool, workers: list[SimulatedWorker]):
    """BLMOVE has handed it to one worker, when another one meets it in its key's queue."""
    (job,) = pool.enqueue("a", model="A")
    rest(pool.redis, "c1", "A")
    rest(pool.redis, "c2", "A")
    pool.redis.lmove(CHAT_QUEUE, "rq:queue:chat:default:intermediate")
    assert workers[1].start() == ""
    assert workers[0].start(job) == ""
    assert pool.redis.llen(CHAT_QUEUE) == 0
    assert pool.redis.lrange(BATCH_QUEUE, 0, -1) == [job.encode()]
    assert workers[2].start() == job
    assert pool.queue.count_waiting("default") == 0


def test_popped_job_that_is_set_aside_is_listed_once(pool: SimulatedPool, workers: list[SimulatedWorker]):
    limited, other = *pool.enqueue("a", model="A"), *pool.enqueue("b", model="B")
    rest(pool.redis, "c1", "A")
    pool.redis.lmove(CHAT_QUEUE, "rq:queue:chat:default:intermediate")
    assert workers[0].start(limited) == other
    assert pool.redis.llen(CHAT_QUEUE) == 0
    assert pool.redis.lrange(BATCH_QUEUE, 0, -1) == [limited.encode()]


def test_job_set_aside_that_heads_the_batch_queue_is_passed_over(pool: SimulatedPool, workers: list[SimulatedWorker]):
    limited, first = *pool.enqueue("a", band="batch", model="A"), *pool.enqueue("b", band="batch", model="B")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == first
    (second,) = pool.enqueue("b", band="batch", model="B")
    assert pool.redis.lrange(BATCH_QUEUE, 0, -1) == [limited.encode(), second.encode()]
    assert workers[0].finish_and_start() == second


def test_batch_job_set_aside_is_found_when_no_credential_rests_any_more(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    (job,) = pool.enqueue("a", band="batch", model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    rest(pool.redis, "c1", "A", -1)
    assert workers[0].start() == job


def test_job_set_aside_goes_before_a_later_one_of_a_key_that_is_owed_time(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    """Its tag lies before the virtual time, from which the jobs set aside count."""
    (first,) = pool.enqueue("a", model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    (second,) = pool.enqueue("a", model="A")
    pool.redis.hset(keys.fair_queue("default"), "interactive", 10)
    assert [workers[1].start(), workers[1].finish_and_start()] == [first, second]


def test_credential_that_tries_a_model_does_not_count_as_idle(pool: SimulatedPool, workers: list[SimulatedWorker]):
    rest(pool.redis, "c1", "A")
    worker, bookkeeping = workers[0], pool.bookkeeping
    with pytest.raises(NoAllowedJob):
        bookkeeping.begin(worker.rq, bookkeeping.create_execution(worker.rq), 60, worker.lease, trial=True)
    assert pool.redis.zcard(keys.idle_workers("default")) == 0


def test_backlog_is_set_aside_in_portions(pool: SimulatedPool, workers: list[SimulatedWorker]):
    pool.enqueue("a", 250, model="A")
    (other,) = pool.enqueue("a", model="B")
    rest(pool.redis, "c1", "A")
    for _ in range(2):
        with pytest.raises(NoAllowedJob) as error:
            workers[0].start_or_raise()
        assert error.value.seconds == 0
        assert pool.redis.zcard(keys.idle_workers("default")) == 0
    assert workers[0].start() == other


def test_fairness_between_keys_holds_for_jobs_set_aside(pool: SimulatedPool, workers: list[SimulatedWorker]):
    """Both keys have as much waiting; that one's jobs have been set aside earns it neither more nor less."""
    pool.enqueue("a", 60, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    pool.enqueue("b", 60, model="B")
    started = [workers[1].start(), *(workers[1].finish_and_start() for _ in range(39))]
    assert Counter(map(key_of, started)) == {"a": 20, "b": 20}


def test_key_earns_no_credit_while_its_jobs_could_not_be_run(pool: SimulatedPool, workers: list[SimulatedWorker]):
    pool.enqueue("a", 60, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    pool.enqueue("b", 200, model="B")
    for _ in range(100):
        assert key_of(workers[0].start() if workers[0].started is None else workers[0].finish_and_start()) == "b"
    pool.redis.delete(keys.resting_models("c1"))
    started = [workers[0].finish_and_start() for _ in range(40)]
    assert Counter(map(key_of, started)) == {"a": pytest.approx(20, abs=1), "b": pytest.approx(20, abs=1)}


def test_batch_jobs_are_set_aside_too(pool: SimulatedPool, workers: list[SimulatedWorker]):
    (limited,) = pool.enqueue("a", band="batch", model="A")
    (other,) = pool.enqueue("a", band="batch", model="B")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == other
    assert workers[0].finish_and_start() == ""
    assert workers[1].start() == limited


def test_job_set_aside_can_be_cancelled(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("a", 2, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    assert pool.queue.cancel("default", first) == "withdrawn"
    assert pool.queue.count_waiting("default") == 1
    assert workers[1].start() == second
    assert workers[1].finish_and_start() == ""
    assert count_structures(pool.redis) == 0


def test_job_set_aside_that_an_operator_has_deleted_is_skipped(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("a", 2, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    pool.redis.delete(f"rq:job:{first}")
    assert workers[1].start() == second
    assert workers[1].finish_and_start() == ""
    assert count_structures(pool.redis) == 0
    assert pool.queue.count_waiting("default") == 0


def test_refused_job_returns_to_the_front_of_its_key_and_model(pool: SimulatedPool, workers: list[SimulatedWorker]):
    first, second = pool.enqueue("a", 2, model="A")
    assert workers[0].start() == first
    rest(pool.redis, "c1", "A")
    workers[0].requeue(is_model_limited=True)
    assert pool.redis.exists(keys.waiting_retries("default")) == 0
    assert workers[0].start() == ""
    assert [workers[1].start(), workers[1].finish_and_start()] == [first, second]
    assert workers[1].started is not None
    assert workers[1].started.retries == 0


def test_retry_is_passed_over_by_a_worker_that_rests_for_its_model(pool: SimulatedPool, workers: list[SimulatedWorker]):
    limited, other = *pool.enqueue("a", model="A"), *pool.enqueue("a", model="B")
    for job in (limited, other):
        assert workers[0].start() == job
        workers[0].requeue()
    rest(pool.redis, "c2", "A")
    assert workers[1].start() == other
    assert workers[1].finish_and_start() == ""
    assert workers[2].start() == limited


def test_credential_that_rests_for_longer_than_a_job_may_wait_is_no_hope_for_it(
    pool: SimulatedPool, workers: list[SimulatedWorker]
):
    (job,) = pool.enqueue("a", model="A")
    for number in (2, 3):
        rest(pool.redis, f"c{number}", "A", 1000)
    assert workers[0].start() == job
    workers[0].requeue()
    assert workers[0].start() == job


def test_full_queue_counts_the_jobs_set_aside(redis: Redis):
    pool = SimulatedPool(redis, max_queue=3)
    worker = pool.worker()
    rest(redis, "c1", "A")
    pool.enqueue("a", 3, model="A")
    assert worker.start() == ""
    with pytest.raises(QueueFull):
        pool.enqueue("a", model="A")
    pool.enqueue("b", model="A")


def test_position_counts_the_jobs_set_aside_before(pool: SimulatedPool, workers: list[SimulatedWorker]):
    pool.enqueue("a", 4, model="A")
    rest(pool.redis, "c1", "A")
    assert workers[0].start() == ""
    assert pool.admit("a", model="A").ahead == 4
    assert pool.admit("a", model="B").ahead == 1


def test_nothing_is_set_aside_while_no_credential_rests(pool: SimulatedPool, workers: list[SimulatedWorker]):
    pool.enqueue("a", 2, model="A")
    assert workers[0].start()
    assert workers[0].finish_and_start()
    assert count_structures(pool.redis) == 0
