"""The waiting line that operators see is the order in which the queue is served."""

import heapq
import json
import random
import time

import pytest
from redis import Redis

from shared import keys
from shared.observability.key_seconds import KeySeconds
from shared.protocol.pool_pause import pause_pool
from shared.queue_view.fairness import Rival
from shared.queue_view.pool_queue import PoolQueue, QueueView
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker
from workers.jobs.rq_bookkeeping import BatchPolicy

#: Seconds of each request, so many that none is overdue however slow the test is.
COST = 1000.0


@pytest.fixture
def pool(redis: Redis) -> SimulatedPool:
    redis.hset(keys.fair_queue("default"), "cost", COST)
    return SimulatedPool(redis, BatchPolicy(wait_seconds=0, interval=4))


def read(pool: SimulatedPool, most: int = 1000, batch_age: float = 0, batch_turns: int = 4) -> PoolQueue:
    (queue,) = QueueView(pool.redis, batch_age, batch_turns).read([pool.name], most)
    return queue


def list_ids(queue: PoolQueue) -> list[str]:
    return [request.request for request in queue.waiting]


def dump_all(pool: SimulatedPool) -> dict[bytes, bytes]:
    return {key: pool.redis.dump(key) for key in pool.redis.scan_iter()}


def serve_all(workers: list[SimulatedWorker], seconds: float = COST) -> list[str]:
    """Lets the workers end their requests by turns; returns what they start meanwhile, in order."""
    order = []
    while busy := [worker for worker in workers if worker.started]:
        order += [worker.finish_and_start(seconds) for worker in busy]
    return [job_id for job_id in order if job_id]


@pytest.mark.parametrize("seed", range(1))
def test_line_is_the_order_of_service(pool: SimulatedPool, seed: int):
    chance = random.Random(seed)
    workers = [pool.worker(number) for number in range(1, 8)]
    pool.enqueue("first", 20)
    for worker in workers:
        worker.start()
    for _ in range(120):
        key = chance.choice("abc")
        pool.enqueue(key, chance.randint(1, 8), {"a": 1, "b": 2, "c": 0.5}[key])
    expected = list_ids(read(pool))
    assert len(expected) > 400
    assert serve_all(workers) == expected


def serve_by_the_clock(workers: list[SimulatedWorker], chance: random.Random, spread: float) -> dict[str, float]:
    """Lets requests take COST on average, and up to `spread` of it more or less; returns when each is started.

    By a simulated clock: whoever is free first takes the next request, as in a farm.
    """
    starts: dict[str, float] = {}
    free = []
    for number, worker in enumerate(workers):
        seconds = COST * chance.uniform(1 - spread, 1 + spread)
        heapq.heappush(free, (seconds, number, seconds, worker))
    while free:
        now, number, seconds, worker = heapq.heappop(free)
        if job_id := worker.finish_and_start(seconds):
            starts[job_id] = now
            seconds = COST * chance.uniform(1 - spread, 1 + spread)
            heapq.heappush(free, (now + seconds, number, seconds, worker))
    return starts


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_five_hundred_requests_start_in_the_shown_order_and_about_when_it_was_shown(pool: SimulatedPool, spread: float):
    """Three keys with weights; the order is exact as long as requests take what they are assumed to take."""
    chance, workers = random.Random(7), [pool.worker(number) for number in range(1, 9)]
    pool.redis.zadd(keys.PROCESSES, {"p1": 1})
    pool.redis.hset(keys.process("p1"), mapping={"busy:default": len(workers), "idle:default": 0})
    pool.enqueue("first", len(workers))
    for worker in workers:
        worker.start()
    for key in chance.sample(200 * ["a"] + 200 * ["b"] + 100 * ["c"], 500):
        pool.admit(key, weight={"a": 1, "b": 3, "c": 0.5}[key])
    shown = {request.request: request for request in read(pool).waiting}
    starts = serve_by_the_clock(workers, chance, spread)
    assert len(shown) == len(starts) == 500
    assert [request.position for request in shown.values()] == list(range(1, 501))
    if not spread:
        assert list(starts) == list(shown)
    errors = sorted(abs((shown[request].eta or 0.0) - at) / at for request, at in starts.items())
    assert errors[len(errors) // 2] < (0.2 if spread else 0.01)


def test_batch_requests_get_their_turns(pool: SimulatedPool):
    worker = pool.worker()
    pool.enqueue("a", 1)
    worker.start()
    pool.enqueue("a", 20)
    pool.enqueue("slow", 10, band="batch")
    expected = list_ids(read(pool))
    assert [request.partition("_")[2][:4] for request in expected[:4]].count("slow") == 1
    assert serve_all([worker]) == expected


def test_young_batch_requests_wait(pool: SimulatedPool):
    pool.enqueue("slow", 5, band="batch")
    pool.enqueue("a", 20)
    assert [request.key for request in read(pool, batch_age=3600).waiting] == 20 * ["a"] + 5 * ["slow"]


def test_retries_come_first(pool: SimulatedPool):
    workers = [pool.worker(1), pool.worker(2)]
    pool.redis.hset("farm:credentials:default", mapping={"c1": "active", "c2": "active"})
    failed, *others = pool.enqueue("a", 3)
    workers[0].start()
    workers[0].requeue()
    queue = read(pool)
    assert [(request.request, request.state, request.failed_attempts) for request in queue.waiting] == [
        (failed, "retry", 1),
        *((other, "queued", 0) for other in others),
    ]
    assert queue.status.queue_depth == {"interactive": 3, "batch": 0}
    assert workers[1].start() == failed


def test_position_is_counted_over_all_keys(pool: SimulatedPool):
    pool.enqueue("a", 2)
    pool.enqueue("b", 1, model="gpt\x1b[31m", path="/embeddings?x=1")
    queue = read(pool)
    assert [request.position for request in queue.waiting] == [1, 2, 3]
    (other,) = [request for request in queue.waiting if request.key == "b"]
    assert (other.model, other.endpoint, other.band, other.pool) == (
        "gpt?[31m",
        "/embeddings",
        "interactive",
        "default",
    )
    shares = {share.key: (share.waiting, share.entitled, share.next_position) for share in queue.keys}
    assert shares == {"a": (2, 0.5, 1), "b": (1, 0.5, 2)}


def test_reading_changes_nothing(pool: SimulatedPool):
    pool.enqueue("a", 3)
    pool.enqueue("b", 3, band="batch")
    before = dump_all(pool)
    read(pool)
    QueueView(pool.redis, 0, 4).list_running(["default"], 10)
    assert dump_all(pool) == before


def test_only_as_many_as_wanted_are_read(pool: SimulatedPool):
    pool.enqueue("a", 50)
    pool.enqueue("b", 50)
    queue = read(pool, most=7)
    assert list_ids(queue) == list_ids(read(pool))[:7]
    assert queue.status.queue_depth == {"interactive": 100, "batch": 0}


def test_empty_queue_is_drained(pool: SimulatedPool):
    queue = read(pool)
    assert (list_ids(queue), queue.drained_in, queue.oldest) == ([], 0.0, {"interactive": None, "batch": None})


def test_clock_tells_when_the_queue_is_empty_and_full(pool: SimulatedPool):
    """Ten requests wait, one runs, and in the minute before six joined that were served meanwhile."""
    pool.enqueue("a", 11)
    pool.worker().start()
    pool.redis.set(keys.served_jobs("default"), 6)
    pool.redis.zadd(keys.PROCESSES, {"p1": 1})
    pool.redis.hset(keys.process("p1"), mapping={"busy:default": 1, "idle:default": 0})
    now = int(time.time() / 5) * 5
    for at, figures in ((now - 50, {"served": 0, "waiting": 11}), (now, {"served": 6, "waiting": 10, "busy": 1})):
        totals = json.dumps({"now": {"default": figures}})
        pool.redis.xadd(keys.samples(5), {"e": totals}, id=f"{at}000-0")
    (queue,) = QueueView(pool.redis, 0, 4, max_queue=70).read(["default"], 100, more_accounts=9)
    clock = queue.clock
    assert (clock.arrival_rate, clock.capacity) == (0.12, 1 / COST)
    assert queue.drained_in == clock.empty_in == pytest.approx(10 * COST, rel=0.01)
    assert (clock.more_accounts, clock.empty_in_with_more) == (9, pytest.approx(COST, rel=0.01))
    assert (clock.empty_in_at_rate, clock.full_in) == (None, pytest.approx(60 / (0.12 - 1 / COST), rel=0.01))


def test_clock_of_a_paused_pool_tells_only_when_it_is_full(pool: SimulatedPool):
    pool.enqueue("a", 3)
    pool.worker().start()
    pause_pool(pool.redis, "default", "tests")
    clock = read(pool).clock
    assert (clock.capacity, clock.empty_in, clock.empty_in_with_more) == (0.0, None, None)


def test_keys_that_only_run_have_their_weight_and_keys_wait_for_others(pool: SimulatedPool):
    pool.enqueue("runs", 1, weight=3)
    pool.worker().start()
    pool.enqueue("waits", 2)
    counted = KeySeconds()
    counted.add("default", "runs", 30.0)
    counted.add("default", "gone", 10.0)
    counted.flush(pool.redis)
    queue = read(pool)
    shares = {share.key: share for share in queue.keys}
    assert {key: (share.weight, share.entitled) for key, share in shares.items()} == {
        "runs": (3.0, 0.75),
        "waits": (1.0, 0.25),
    }
    assert shares["waits"].waits_for == [Rival("runs", "", 1, 0)]
    assert [(share.key, share.got) for share in queue.fairness] == [("runs", 0.75), ("gone", 0.25), ("waits", 0.0)]


def test_patience_counts_the_turns_of_others(pool: SimulatedPool):
    worker = pool.worker()
    pool.enqueue("slow", 1, band="batch")
    pool.enqueue("a", 9)
    worker.start()
    patience = read(pool, batch_age=0).patience
    assert patience is not None
    assert (patience.turns, patience.every, patience.next_position) == (1, 4, 3)


def test_running_requests_are_listed_oldest_first(pool: SimulatedPool):
    ids = pool.enqueue("a", 3, model="m")
    for number in (1, 2):
        pool.worker(number).start()
    running = QueueView(pool.redis, 0, 4).list_running(["default"], 10)
    assert [(r.request, r.credential, r.key, r.model, r.has_begun) for r in running] == [
        (ids[0], "c1", "a", "m", False),
        (ids[1], "c2", "a", "m", False),
    ]


def test_requests_set_aside_for_their_model_are_in_the_line(pool: SimulatedPool):
    """A worker whose credential rests for their model has passed over them; another one serves them in this order."""
    limited = [*pool.enqueue("a", 3, model="A"), *pool.enqueue("only", 2, model="A")]
    until = 2 * time.time()
    pool.redis.hset(keys.resting_models("c1"), "A", until)
    pool.redis.zadd(keys.resting_by_pool("default"), {"A": until})
    assert pool.worker(1).start() == ""
    expected = list_ids(read(pool))
    assert set(expected) == set(limited)
    later = pool.enqueue("a", 2, model="B")
    expected = list_ids(read(pool))
    assert [request for request in expected if "_a_" in request] == [*limited[:3], *later]
    other = pool.worker(2)
    assert [other.start(), *serve_all([other])] == expected
