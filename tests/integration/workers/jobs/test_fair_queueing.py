"""Whose request goes next: shares by weight, whatever the backlogs; interactive before batch, which never starves."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from shared import keys
from shared.protocol.relay_queue import QueueFull, RelayQueue, queue_keys
from tests.integration.shared.protocol.test_relay_queue import request
from tests.integration.workers.jobs.test_rq_bookkeeping import Stock
from workers.credentials.leases import Lease
from workers.jobs.job_records import StartedJob
from workers.jobs.rq_bookkeeping import BatchPolicy, Bookkeeping

CHAT, BATCH = queue_keys("default")


@dataclass
class Pool:
    """A pool's queue and as many workers as a test wants; what a job takes is told and not waited for."""

    redis: Redis
    due: BatchPolicy = field(default_factory=BatchPolicy)
    max_queue: int = 100_000

    def __post_init__(self) -> None:
        self.queue = RelayQueue(self.redis, self.max_queue)
        self.books = Bookkeeping(self.redis, "default", batch_policy=self.due)
        self.count = 0

    def ask(self, key: str, times: int = 1, weight: float = 1.0, **changes) -> list[str]:
        ids = []
        for _ in range(times):
            self.count += 1
            asked = request(f"req_{key}_{self.count}", key=key, **changes)
            self.queue.enqueue(asked, b"x", weight=weight)
            ids.append(asked.id)
        return ids

    def worker(self, number: int = 1) -> "Worker":
        return Worker(self, number)


class Worker:
    """One of RQ's workers by name, which begins and ends jobs."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.pool = pool
        self.lease = Lease("default", f"c{number}", f"p:{number}", 1e12)
        pool.redis.set(self.lease.key, self.lease.value)
        queues = list(pool.books.queues.values())
        name = f"default.c{number}"
        self.rq = Stock(queues, name=name, connection=pool.redis, serializer=JSONSerializer)
        self.begun: StartedJob | None = None

    def begin(self, job_id: str = "") -> str:
        books = self.pool.books
        self.begun = books.begin(self.rq, books.create_execution(self.rq, job_id), 60, self.lease)
        return self.begun.job_id if self.begun else ""

    def turn(self, seconds: float = 1.0) -> str:
        """Ends a job that has taken so long, and begins the next."""
        assert self.begun is not None
        books = self.pool.books
        self.begun.execution.created_at = now() - timedelta(seconds=seconds)
        self.begun = books.finish_and_begin(
            self.rq, self.begun, books.create_execution(self.rq), 60, self.lease, ok=True
        )
        return self.begun.job_id if self.begun else ""


def owner(job_id: str) -> str:
    return job_id.split("_")[1]


def serve(worker: Worker, turns: int) -> list[str]:
    """Whose jobs are begun, one after the other, all of the same length."""
    found = [worker.begin()]
    while len(found) < turns and worker.begun:
        found.append(worker.turn())
    return [owner(job) for job in found if job]


@pytest.fixture
def pool(redis: Redis) -> Pool:
    return Pool(redis)


def test_one_key_is_served_in_the_order_of_its_requests(pool: Pool):
    ids = pool.ask("a", 5)
    worker = pool.worker()
    assert [worker.begin(), *(worker.turn() for _ in range(5))] == [*ids, ""]


def test_a_newcomer_does_not_wait_behind_anothers_thousand(pool: Pool):
    pool.ask("bulk", 1000)
    worker = pool.worker()
    serve(worker, 100)
    pool.ask("new", 3)
    order = serve(worker, 8)
    assert order.index("new") <= 1
    assert Counter(order[:6]) == {"new": 3, "bulk": 3}
    assert set(order[6:]) == {"bulk"}


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 3, "d": 0.5, "e": 5}], ids=str
)
def test_shares_follow_the_weights(pool: Pool, weights: dict[str, float]):
    for key, weight in weights.items():
        pool.ask(key, 400, weight)
    turns = 300
    served = Counter(serve(pool.worker(), turns))
    for key, weight in weights.items():
        assert served[key] / turns == pytest.approx(weight / sum(weights.values()), abs=0.01)


def test_shares_are_of_time_and_not_of_requests(pool: Pool):
    """Key a's requests take five times as long as key b's: it gets a fifth of the turns."""
    lasts = {"a": 1.0, "b": 0.2}
    for key in lasts:
        pool.ask(key, 1000)
    worked = simulate(pool, lasts, workers=10, until=30.0)
    assert worked["a"] / worked["b"] == pytest.approx(1, abs=0.05)


def test_shares_hold_for_requests_of_all_lengths_on_many_workers(pool: Pool):
    weights = {"a": 1, "b": 2, "c": 4}
    for key, weight in weights.items():
        pool.ask(key, 500, weight)
    worked = simulate(pool, dict.fromkeys(weights, 0.0), workers=20, until=30.0)
    for key, weight in weights.items():
        assert worked[key] / sum(worked.values()) == pytest.approx(weight / 7, rel=0.05)


def simulate(pool: Pool, lasts: dict[str, float], workers: int, until: float) -> Counter[str]:
    """Worker time by key, on a clock of its own; 0 for requests of all lengths."""
    draw = random.Random(1)
    crew = {pool.worker(number): 0.0 for number in range(workers)}
    took: dict[Worker, float] = {}
    worked: Counter[str] = Counter()
    while (at := min(crew.values())) < until:
        worker = min(crew, key=lambda one: crew[one])
        job_id = worker.turn(took[worker]) if worker in took else worker.begin()
        took[worker] = lasts[owner(job_id)] or draw.uniform(0.1, 2.0)
        worked[owner(job_id)] += took[worker]
        crew[worker] = at + took[worker]
    return worked


def test_an_idle_keys_share_goes_to_the_others_at_once_and_is_not_saved_up(pool: Pool):
    pool.ask("a", 300)
    pool.ask("b", 1)
    worker = pool.worker()
    assert Counter(serve(worker, 101)) == {"a": 100, "b": 1}
    pool.ask("b", 100)
    assert Counter(serve(worker, 20))["b"] == pytest.approx(10, abs=1)


def test_a_weight_that_changes_holds_for_what_waits_already(pool: Pool):
    pool.ask("a", 300)
    pool.ask("b", 300)
    pool.ask("b", 1, weight=4)
    assert Counter(serve(pool.worker(), 100))["b"] == pytest.approx(80, abs=2)


# Bands


def test_interactive_goes_before_batch(pool: Pool):
    pool.ask("b", 3, band="batch")
    pool.ask("i", 3)
    assert serve(pool.worker(), 6) == ["i"] * 3 + ["b"] * 3


def test_rqs_queues_show_what_waits_in_each_band(pool: Pool):
    pool.ask("b", 3, band="batch")
    pool.ask("i", 2)
    assert [Queue(name, connection=pool.redis).count for name in ("chat:default", "batch:default")] == [2, 3]
    job = Job.fetch("req_b_1", connection=pool.redis, serializer=JSONSerializer)
    assert (job.origin, job.get_status()) == ("batch:default", "queued")


def test_a_batch_request_that_has_waited_gets_one_of_so_many_turns(pool: Pool):
    pool = Pool(pool.redis, BatchPolicy(wait_seconds=10, interval=5))
    pool.ask("b", 20, band="batch", enqueued_at=1000.0)
    pool.ask("i", 200)
    order = serve(pool.worker(), 50)
    assert [place for place, who in enumerate(order, 1) if who == "b"] == list(range(5, 51, 5))


def test_a_batch_request_that_has_not_waited_long_gets_none(pool: Pool):
    pool = Pool(pool.redis, BatchPolicy(wait_seconds=10, interval=5))
    pool.ask("b", 20, band="batch")
    pool.ask("i", 200)
    assert set(serve(pool.worker(), 50)) == {"i"}


def test_a_batch_request_wakes_a_worker_that_waits(pool: Pool):
    worker = pool.worker()
    assert worker.begin() == ""
    (job_id,) = pool.ask("b", band="batch")
    assert pool.redis.lmove(CHAT, CHAT + ":intermediate") == job_id.encode()
    assert worker.begin(job_id) == job_id
    pool.ask("b", band="batch")
    assert (pool.redis.llen(CHAT), pool.redis.llen(BATCH)) == (0, 1)


def test_a_worker_that_has_begun_to_work_is_not_taken_for_a_waiting_one(pool: Pool):
    worker = pool.worker()
    worker.begin()
    assert pool.redis.zcard(keys.idle_workers("default")) == 1
    pool.ask("i")
    worker.begin()
    assert pool.redis.zcard(keys.idle_workers("default")) == 0


def test_an_ended_batch_job_leaves_nothing(pool: Pool):
    (job_id,) = pool.ask("b", band="batch")
    worker = pool.worker()
    worker.begin()
    assert pool.redis.zcard("rq:wip:batch:default") == 1
    worker.turn()
    assert pool.redis.keys(f"*{job_id}*") == []
    assert pool.redis.zcard("rq:wip:batch:default") == 0


# What BLMOVE hands over


def test_a_job_that_was_handed_over_waits_again_when_it_is_anothers_turn(pool: Pool):
    pool.ask("bulk", 10)
    worker = pool.worker()
    serve(worker, 3)
    pool.ask("new")
    head = pool.redis.lmove(CHAT, CHAT + ":intermediate").decode()
    other = pool.worker(2)
    assert owner(other.begin(head)) == "new"
    assert pool.redis.lrange(CHAT, 0, 0) == [head.encode()]
    assert pool.redis.llen(CHAT + ":intermediate") == 0
    assert worker.turn() == head


def test_a_job_that_one_was_handed_and_another_began_is_not_begun_twice(pool: Pool):
    (job_id,) = pool.ask("a")
    pool.redis.lmove(CHAT, CHAT + ":intermediate")
    assert pool.worker(1).begin() == job_id
    assert pool.worker(2).begin(job_id) == ""
    assert pool.redis.llen(CHAT + ":intermediate") == 0


def test_a_job_that_rq_itself_put_back_is_served_though_it_stands_in_no_line(pool: Pool):
    (job_id,) = pool.ask("a")
    worker = pool.worker()
    worker.begin()
    pool.books.fail(worker.rq, worker.begun, "why")
    pool.books.queues["interactive"].failed_job_registry.requeue(job_id)
    pool.ask("b", 2)
    assert worker.begin() == job_id
    assert owner(worker.turn()) == "b"


def test_a_queue_that_a_person_emptied_is_empty(pool: Pool):
    pool.ask("a", 3)
    pool.books.queues["interactive"].empty()
    (job_id,) = pool.ask("a")
    assert pool.worker().begin() == job_id


# Retries and leavers


def test_a_request_that_is_tried_again_goes_first(pool: Pool):
    pool.ask("a", 3)
    pool.ask("b", 3)
    worker = pool.worker()
    first = worker.begin()
    pool.books.requeue(worker.rq, worker.begun)
    assert worker.begin() == first


def test_a_failed_probe_goes_last(pool: Pool):
    ids = pool.ask("a", 3)
    worker = pool.worker()
    worker.begin()
    pool.books.requeue(worker.rq, worker.begun, counts=False)
    assert [worker.begin(), worker.turn(), worker.turn()] == [ids[1], ids[2], ids[0]]


def test_what_is_withdrawn_is_not_waited_for(pool: Pool):
    ids = pool.ask("a", 3)
    pool.ask("b", band="batch")
    assert pool.queue.withdraw("default", ids[0])
    assert pool.queue.cancel("default", "req_b_4") == "withdrawn"
    assert serve(pool.worker(), 5) == ["a", "a"]
    assert pool.redis.zcard(keys.fair_queue("default") + ":batch") == 0
    assert pool.queue.count_waiting("default") == 0


# What is told at the door


def test_the_place_in_the_queue_counts_those_that_go_before(pool: Pool):
    pool.ask("bulk", 100)

    def place(key: str, **changes) -> int:
        pool.count += 1
        return pool.queue.enqueue(request(f"req_{key}_{pool.count}", key=key, **changes), b"x").ahead

    assert place("new") <= 1
    assert place("bulk") == pytest.approx(101, abs=1)
    assert place("late", band="batch") == 102


def test_one_key_can_not_keep_the_others_out_of_a_full_queue(pool: Pool):
    pool = Pool(pool.redis, max_queue=10)
    pool.ask("bulk", 10)
    with pytest.raises(QueueFull):
        pool.ask("bulk")
    pool.ask("new", 5)
    with pytest.raises(QueueFull):
        pool.ask("new")
    pool.ask("third", 3)
    with pytest.raises(QueueFull) as full:
        pool.ask("third", 2)
    assert full.value.waiting == 19
