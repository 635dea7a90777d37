"""Keys share the workers by weight; interactive requests go before batch requests."""

import random
from collections import Counter

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.protocol.relay_queue import QueueFull, queue_keys
from tests.builders import build_request
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker, key_of, serve
from workers.jobs.rq_bookkeeping import PROBE, BatchPolicy

CHAT_QUEUE, BATCH_QUEUE = queue_keys("default")


def test_requests_of_one_key_are_served_in_order(pool: SimulatedPool):
    ids = pool.enqueue("a", 5)
    worker = pool.worker()
    assert [worker.start(), *(worker.finish_and_start() for _ in range(5))] == [*ids, ""]


def test_new_key_does_not_wait_behind_another_keys_backlog(pool: SimulatedPool):
    pool.enqueue("bulk", 1000)
    worker = pool.worker()
    serve(worker, 100)
    pool.enqueue("new", 3)
    order = serve(worker, 8)
    assert order.index("new") <= 1
    assert Counter(order[:6]) == {"new": 3, "bulk": 3}
    assert set(order[6:]) == {"bulk"}


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 3, "d": 0.5, "e": 5}], ids=str
)
def test_shares_follow_the_weights(pool: SimulatedPool, weights: dict[str, float]):
    for key, weight in weights.items():
        pool.enqueue(key, 400, weight)
    served = Counter(serve(pool.worker(), 300))
    for key, weight in weights.items():
        assert served[key] / 300 == pytest.approx(weight / sum(weights.values()), abs=0.01)


def test_shares_are_of_worker_time_not_of_requests(pool: SimulatedPool):
    """Key a's requests take five times as long as key b's, so a fifth as many are served."""
    durations = {"a": 1.0, "b": 0.2}
    for key in durations:
        pool.enqueue(key, 1000)
    worked = simulate(pool, durations, workers=10, until=30.0)
    assert worked["a"] / worked["b"] == pytest.approx(1, abs=0.05)


def test_shares_hold_for_random_durations_on_many_workers(pool: SimulatedPool):
    weights = {"a": 1, "b": 2, "c": 4}
    for key, weight in weights.items():
        pool.enqueue(key, 500, weight)
    worked = simulate(pool, dict.fromkeys(weights, 0.0), workers=20, until=30.0)
    for key, weight in weights.items():
        assert worked[key] / sum(worked.values()) == pytest.approx(weight / 7, rel=0.05)


def simulate(pool: SimulatedPool, durations: dict[str, float], workers: int, until: float) -> Counter[str]:
    """Seconds of worker time by key, on a simulated clock; a duration of 0 means a random one."""
    rng = random.Random(1)
    free_at = {pool.worker(number): 0.0 for number in range(workers)}
    took: dict[SimulatedWorker, float] = {}
    worked: Counter[str] = Counter()
    while (at := min(free_at.values())) < until:
        worker = min(free_at, key=lambda worker: free_at[worker])
        job_id = worker.finish_and_start(took[worker]) if worker in took else worker.start()
        took[worker] = durations[key_of(job_id)] or rng.uniform(0.1, 2.0)
        worked[key_of(job_id)] += took[worker]
        free_at[worker] = at + took[worker]
    return worked


def test_idle_keys_share_goes_to_the_others_and_is_not_saved_up(pool: SimulatedPool):
    pool.enqueue("a", 300)
    pool.enqueue("b", 1)
    worker = pool.worker()
    assert Counter(serve(worker, 101)) == {"a": 100, "b": 1}
    pool.enqueue("b", 100)
    assert Counter(serve(worker, 20))["b"] == pytest.approx(10, abs=1)


def test_changed_weight_holds_for_requests_that_wait_already(pool: SimulatedPool):
    pool.enqueue("a", 300)
    pool.enqueue("b", 300)
    pool.enqueue("b", 1, weight=4)
    assert Counter(serve(pool.worker(), 100))["b"] == pytest.approx(80, abs=2)


# Bands


def test_interactive_requests_go_before_batch_requests(pool: SimulatedPool):
    pool.enqueue("b", 3, band="batch")
    pool.enqueue("i", 3)
    assert serve(pool.worker(), 6) == ["i"] * 3 + ["b"] * 3


def test_rq_queues_show_the_requests_that_wait_in_each_band(pool: SimulatedPool):
    pool.enqueue("b", 3, band="batch")
    pool.enqueue("i", 2)
    assert [Queue(name, connection=pool.redis).count for name in ("chat:default", "batch:default")] == [2, 3]
    job = Job.fetch("req_b_1", connection=pool.redis, serializer=JSONSerializer)
    assert (job.origin, job.get_status()) == ("batch:default", "queued")


def test_batch_requests_that_waited_long_get_every_nth_job(pool: SimulatedPool):
    pool = SimulatedPool(pool.redis, BatchPolicy(wait_seconds=10, interval=5))
    pool.enqueue("b", 20, band="batch", enqueued_at=1000.0)
    pool.enqueue("i", 200)
    order = serve(pool.worker(), 50)
    assert [position for position, key in enumerate(order, 1) if key == "b"] == list(range(5, 51, 5))


def test_batch_requests_that_waited_briefly_get_no_job(pool: SimulatedPool):
    pool = SimulatedPool(pool.redis, BatchPolicy(wait_seconds=10, interval=5))
    pool.enqueue("b", 20, band="batch")
    pool.enqueue("i", 200)
    assert set(serve(pool.worker(), 50)) == {"i"}


def test_batch_request_wakes_an_idle_worker(pool: SimulatedPool):
    worker = pool.worker()
    assert worker.start() == ""
    (job_id,) = pool.enqueue("b", band="batch")
    assert pool.redis.lmove(CHAT_QUEUE, CHAT_QUEUE + ":intermediate") == job_id.encode()
    assert worker.start(job_id) == job_id
    pool.enqueue("b", band="batch")
    assert (pool.redis.llen(CHAT_QUEUE), pool.redis.llen(BATCH_QUEUE)) == (0, 1)


def test_busy_worker_is_not_counted_as_idle(pool: SimulatedPool):
    worker = pool.worker()
    worker.start()
    assert pool.redis.zcard(keys.idle_workers("default")) == 1
    pool.enqueue("i")
    worker.start()
    assert pool.redis.zcard(keys.idle_workers("default")) == 0


def test_finished_batch_job_leaves_nothing(pool: SimulatedPool):
    (job_id,) = pool.enqueue("b", band="batch")
    worker = pool.worker()
    worker.start()
    assert pool.redis.zcard("rq:wip:batch:default") == 1
    worker.finish_and_start()
    assert pool.redis.keys(f"*{job_id}*") == []
    assert pool.redis.zcard("rq:wip:batch:default") == 0


# Jobs that BLMOVE pops


def test_popped_job_waits_again_when_another_key_goes_first(pool: SimulatedPool):
    pool.enqueue("bulk", 10)
    worker = pool.worker()
    serve(worker, 3)
    pool.enqueue("new")
    head = pool.redis.lmove(CHAT_QUEUE, CHAT_QUEUE + ":intermediate").decode()
    other = pool.worker(2)
    assert key_of(other.start(head)) == "new"
    assert pool.redis.lrange(CHAT_QUEUE, 0, 0) == [head.encode()]
    assert pool.redis.llen(CHAT_QUEUE + ":intermediate") == 0
    assert worker.finish_and_start() == head


def test_popped_job_that_another_worker_started_is_not_started_twice(pool: SimulatedPool):
    (job_id,) = pool.enqueue("a")
    pool.redis.lmove(CHAT_QUEUE, CHAT_QUEUE + ":intermediate")
    assert pool.worker(1).start() == job_id
    assert pool.worker(2).start(job_id) == ""
    assert pool.redis.llen(CHAT_QUEUE + ":intermediate") == 0


def test_failed_job_that_rq_put_back_is_served_first(pool: SimulatedPool):
    (job_id,) = pool.enqueue("a")
    worker = pool.worker()
    worker.start()
    pool.bookkeeping.fail(worker.rq, worker.started, "why")
    pool.bookkeeping.queues["interactive"].failed_job_registry.requeue(job_id)
    pool.enqueue("b", 2)
    assert worker.start() == job_id
    assert key_of(worker.finish_and_start()) == "b"


def test_emptied_queue_serves_only_later_requests(pool: SimulatedPool):
    pool.enqueue("a", 3)
    pool.bookkeeping.queues["interactive"].empty()
    (job_id,) = pool.enqueue("a")
    assert pool.worker().start() == job_id


# Retries and cancellations


def test_requeued_request_goes_first(pool: SimulatedPool):
    pool.enqueue("a", 3)
    pool.enqueue("b", 3)
    worker = pool.worker()
    first = worker.start()
    worker.requeue()
    assert worker.start() == first


def test_request_of_a_failed_probe_goes_last(pool: SimulatedPool):
    ids = pool.enqueue("a", 3)
    worker = pool.worker()
    worker.start()
    pool.bookkeeping.requeue(worker.rq, worker.started, PROBE)
    assert [worker.start(), worker.finish_and_start(), worker.finish_and_start()] == [ids[1], ids[2], ids[0]]


def test_withdrawn_requests_are_not_served(pool: SimulatedPool):
    ids = pool.enqueue("a", 3)
    pool.enqueue("b", band="batch")
    assert pool.queue.withdraw("default", ids[0])
    assert pool.queue.cancel("default", "req_b_4") == "withdrawn"
    assert serve(pool.worker(), 5) == ["a", "a"]
    assert pool.redis.zcard(keys.fair_queue("default") + ":batch") == 0
    assert pool.queue.count_waiting("default") == 0


# What a front learns when it enqueues


def test_enqueue_reports_how_many_requests_go_before(pool: SimulatedPool):
    pool.enqueue("bulk", 100)

    def jobs_ahead(key: str, **changes) -> int:
        pool.count += 1
        return pool.queue.enqueue(build_request(f"req_{key}_{pool.count}", key=key, **changes), b"x").ahead

    assert jobs_ahead("new") <= 1
    assert jobs_ahead("bulk") == pytest.approx(101, abs=1)
    assert jobs_ahead("late", band="batch") == 102


def test_one_key_cannot_fill_the_queue_for_others(pool: SimulatedPool):
    pool = SimulatedPool(pool.redis, max_queue=10)
    pool.enqueue("bulk", 10)
    with pytest.raises(QueueFull):
        pool.enqueue("bulk")
    pool.enqueue("new", 5)
    with pytest.raises(QueueFull):
        pool.enqueue("new")
    pool.enqueue("third", 3)
    with pytest.raises(QueueFull) as full:
        pool.enqueue("third", 2)
    assert full.value.waiting == 19


# Jobs that operators delete, empty or put back


def test_key_whose_queue_was_emptied_is_not_charged_for_it(pool: SimulatedPool):
    pool.enqueue("a", 50)
    worker = pool.worker()
    serve(worker, 5)
    pool.bookkeeping.queues["interactive"].empty()
    pool.enqueue("b", 20)
    pool.enqueue("a", 3)
    order = serve(worker, 8)
    assert order.count("a") == 3


def test_failed_batch_job_that_was_put_back_is_served_first(pool: SimulatedPool):
    (job_id,) = pool.enqueue("b", band="batch")
    worker = pool.worker()
    worker.start()
    pool.bookkeeping.fail(worker.rq, worker.started, "why")
    pool.bookkeeping.queues["batch"].failed_job_registry.requeue(job_id)
    pool.enqueue("b", 2, band="batch")
    assert worker.start() == job_id
    assert key_of(worker.finish_and_start()) == "b"


def test_clock_that_was_set_back_gives_no_advantage(pool: SimulatedPool):
    pool.enqueue("a", 50)
    pool.enqueue("b", 50)
    worker = pool.worker()
    worker.start()
    worker.finish_and_start(seconds=-1000.0)
    assert serve(worker, 20).count("a") == pytest.approx(10, abs=2)


def test_whose_requests_are_ahead_is_told_with_the_rest_summed_up(pool: SimulatedPool):
    for number in range(1, 7):
        pool.enqueue(f"k{number}", number)
    admission = pool.admit("late", weight=0.001)
    assert admission.ahead_of == ""
    admission = pool.admit("late", weight=0.001)
    assert (admission.ahead, admission.ahead_of) == (22, " k6:6 k5:5 k4:4 k3:3 *:4")
    assert pool.redis.hget(f"rq:job:req_late_{pool.count}", "farm_ahead") == admission.ahead_of.encode()
