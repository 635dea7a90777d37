"""Requests beyond a limit of their key wait in order, at nobody else's cost, and only a bounded number of them."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis
from rq.job import Job
from rq.registry import DeferredJobRegistry
from rq.serializers import JSONSerializer

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, encode_demand
from shared.protocol.changed_limits import apply_limits
from shared.protocol.relay_queue import Admission, RelayQueue, queue_keys
from tests import internals
from tests.builders import build_key, build_request
from tests.integration.workers.jobs.simulated_pool import SimulatedPool, SimulatedWorker
from workers.jobs.job_records import StartedJob

CHAT_QUEUE, BATCH_QUEUE = queue_keys("default")
#: Time 0 of the tests with simulated times, seconds since the epoch.
START = 1_800_000_000.0


@dataclass
class LimitedKey:
    """A key with limits, whose requests are numbered."""

    redis: Redis
    key: ApiKey
    queue_timeout: float = 300.0
    count: int = 0
    queue: RelayQueue = field(init=False)

    def __post_init__(self) -> None:
        self.queue = RelayQueue(self.redis, 1000, queue_timeout=self.queue_timeout)

    def enqueue(self, *, at: float | None = None, tokens: int = 10, body: bytes = b"x", **changes: Any) -> Admission:
        """`at`: seconds after START; None for the present."""
        times = {} if at is None else {"enqueued_at": START + at, "deadline": START + at + 600}
        request = build_request(f"req_{self.count + 1}", key=self.key.id, **{**times, **changes})
        demand = encode_demand(self.key, tokens, request.enqueued_at)
        if at is not None:
            demand = json.dumps({**json.loads(demand), "now": START + at}).encode()
        admission = self.queue.enqueue(request, body, demand)
        self.count += 1
        return admission

    def enqueue_many(self, times: int, **changes: Any) -> list[str]:
        return [f"req_{self.count}" for _ in range(times) if self.enqueue(**changes)]

    def expect_refusal(self, **changes: Any) -> LimitReached:
        with pytest.raises(LimitReached) as caught:
            self.enqueue(**changes)
        return caught.value

    def held(self, line: str = "interactive:default") -> list[str]:
        return [job.decode() for job in self.redis.lrange(f"farm:limit:held:{self.key.id}:{line}", 0, -1)]

    def queued(self, pool: str = "default", band: str = "interactive") -> list[str]:
        """The key's requests in the pool's queue; those are in RQ's queue too."""
        jobs = [job.decode() for job in self.redis.lrange(f"{keys.fair_queue(pool)}:{band}:{self.key.id}", 0, -1)]
        listed = [job.decode() for rq_queue in queue_keys(pool) for job in self.redis.lrange(rq_queue, 0, -1)]
        assert set(jobs) <= set(listed)
        return jobs

    def release_at(self, seconds: float, request_id: str = "") -> float:
        return internals.release_held_at(self.queue, self.key.id, request_id, START + seconds)


@pytest.fixture
def pool(redis: Redis) -> SimulatedPool:
    return SimulatedPool(redis)


@pytest.fixture
def limited(redis: Redis) -> LimitedKey:
    return LimitedKey(redis, build_key(concurrency=2))


@pytest.fixture
def resting(pool: SimulatedPool) -> SimulatedWorker:
    """A worker whose credential rests for model A."""
    pool.redis.hset(keys.resting_models("c1"), "A", time.time() + 100)
    pool.redis.zadd(keys.resting_by_pool("default"), {"A": time.time() + 100})
    return pool.worker(1)


def start_all(pool: SimulatedPool, count: int) -> tuple[list[SimulatedWorker], list[str]]:
    """So many workers, and what they have started: '' for nothing."""
    workers = [pool.worker(number) for number in range(1, count + 1)]
    return workers, [worker.start() for worker in workers]


def test_40_requests_at_once_are_all_served_never_more_than_5_at_a_time(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=5))
    ids = limited.enqueue_many(40)
    assert (limited.queued(), limited.held()) == (ids[:5], ids[5:])
    workers, started = start_all(pool, 8)
    assert started == [*ids[:5], "", "", ""], "the other workers stay idle"
    served = started[:5]
    while len(served) < 40:
        for worker in workers:
            if worker.started and (next_id := worker.finish_and_start()):
                served.append(next_id)
            assert sum(worker.started is not None for worker in workers) <= 5
    assert served == ids
    for worker in workers[:5]:
        assert worker.finish_and_start() == ""
    assert not limited.redis.exists("farm:limit:started:k1", "farm:limit:running:k1", "farm:limit:reserved:k1")


def start_elsewhere(limited: LimitedKey, count: int) -> list[SimulatedWorker]:
    """The key's slots are taken in another pool."""
    other = SimulatedPool(limited.redis, name="other")
    limited.enqueue_many(count, pool="other")
    workers = [other.worker(number) for number in range(11, 11 + count)]
    assert all(worker.start() for worker in workers)
    return workers


def test_requests_set_aside_are_held_in_order_with_those_that_came_later(
    pool: SimulatedPool, limited: LimitedKey, resting: SimulatedWorker
):
    worker = pool.worker(2)
    limited.enqueue(model="A")
    assert resting.start() == ""
    limited.enqueue(model="A")
    elsewhere = start_elsewhere(limited, 2)
    assert worker.start() == ""
    assert limited.held() == ["req_1", "req_2"]
    assert pool.redis.zcard(keys.set_aside("default", "interactive")) == 0
    assert elsewhere[0].finish_and_start() == ""
    assert worker.start() == "req_1"


def test_requests_set_aside_keep_no_place_from_those_of_other_models(
    pool: SimulatedPool, limited: LimitedKey, resting: SimulatedWorker
):
    limited.enqueue_many(5, model="A")
    limited.enqueue_many(3, model="B")
    assert resting.start() == "req_6"
    assert limited.held() == ["req_3", "req_4", "req_5", "req_8"], "of each model as many as may run"
    assert limited.queued() == ["req_7"]
    assert [resting.finish_and_start(), resting.finish_and_start()] == ["req_7", "req_8"]
    able = pool.worker(3)
    assert [able.start(), *(able.finish_and_start() for _ in range(4))] == [f"req_{number}" for number in range(1, 6)]


def test_request_for_another_model_is_admitted_past_those_held_for_one(
    pool: SimulatedPool, limited: LimitedKey, resting: SimulatedWorker
):
    limited.enqueue_many(3, model="A")
    assert resting.start() == ""
    assert limited.held() == ["req_3"]
    limited.enqueue(model="A")
    limited.enqueue(model="B")
    assert limited.held() == ["req_3", "req_4"]
    assert resting.start() == "req_5"


def test_request_that_is_held_after_it_was_popped_is_started_once(pool: SimulatedPool, limited: LimitedKey):
    """BLMOVE has handed it to a worker, which comes when another has run it."""
    slow, quick = pool.worker(1), pool.worker(2)
    for _ in limited.enqueue_many(2):
        limited.redis.lmove(CHAT_QUEUE, "rq:queue:chat:default:intermediate")
    elsewhere = start_elsewhere(limited, 2)
    assert quick.start() == ""
    assert limited.held() == ["req_1", "req_2"]
    assert [worker.finish_and_start() for worker in elsewhere] == ["", ""]
    assert [quick.start(), quick.finish_and_start()] == ["req_1", "req_2"]
    assert slow.start("req_2") == ""
    assert limited.redis.llen(CHAT_QUEUE) == 0


def test_held_requests_take_no_place_in_the_pools_queue(pool: SimulatedPool, limited: LimitedKey):
    pool.queue = RelayQueue(pool.redis, 4)
    limited.queue = RelayQueue(pool.redis, 4)
    limited.enqueue_many(50)
    assert pool.redis.llen(CHAT_QUEUE) == 2
    admission = pool.queue.enqueue(build_request("req_other", key="other"), b"x")
    assert admission.queue_length == 3
    assert admission.ahead <= 1


def test_rq_lists_held_requests_as_deferred(pool: SimulatedPool, limited: LimitedKey):
    ids = limited.enqueue_many(4)
    registry = DeferredJobRegistry(queue=pool.bookkeeping.queues["interactive"])
    assert registry.get_job_ids() == ids[2:]
    job = Job.fetch(ids[3], connection=pool.redis, serializer=JSONSerializer)
    assert job.is_deferred
    worker = pool.worker()
    worker.start()
    worker.finish_and_start()
    assert registry.get_job_ids() == ids[3:]


def start_first_of_two(pool: SimulatedPool) -> tuple[LimitedKey, SimulatedWorker, StartedJob]:
    """A key for one request at a time: the first of two has started, the second one is held."""
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(2)
    worker = pool.worker()
    worker.start()
    assert worker.started is not None
    return limited, worker, worker.started


def test_end_of_a_request_wakes_a_worker_for_the_next(pool: SimulatedPool):
    """The job appears in the queue on which idle workers block, in the script that ends the other."""
    _, worker, started = start_first_of_two(pool)
    assert pool.redis.llen(CHAT_QUEUE) == 0
    pool.bookkeeping.finish(worker.rq, started, ok=True)
    assert pool.redis.lrange(CHAT_QUEUE, 0, -1) == [b"req_2"]


def test_failed_request_lets_the_next_go_on(pool: SimulatedPool):
    limited, worker, started = start_first_of_two(pool)
    pool.bookkeeping.fail(worker.rq, started, "why")
    assert limited.queued() == ["req_2"]


def test_request_that_leaves_the_queue_lets_the_next_go_on(limited: LimitedKey):
    limited.enqueue_many(4)
    assert limited.queue.cancel("default", "req_1") == "withdrawn"
    assert (limited.queued(), limited.held()) == (["req_2", "req_3"], ["req_4"])


def test_held_request_can_be_withdrawn(redis: Redis, limited: LimitedKey):
    limited.enqueue_many(4)
    assert limited.queue.withdraw("default", "req_3")
    assert limited.held() == ["req_4"]
    assert redis.keys("*req_3*") == []
    assert redis.zrange("rq:deferred:chat:default", 0, -1) == [b"req_4"]
    assert limited.queue.cancel("default", "req_4") == "withdrawn"
    assert not redis.exists("farm:limit:held:k1", "rq:deferred:chat:default")
    assert redis.hgetall(keys.quota("k1"))[b"reserved"] == b"20"


def test_retried_request_keeps_its_slot(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(2)
    first, second = pool.worker(1), pool.worker(2)
    first.start()
    first.requeue()
    assert limited.held() == ["req_2"]
    assert second.start() == "req_1"
    assert second.finish_and_start() == "req_2"


def test_slot_of_a_job_that_has_vanished_is_freed(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(2)
    pool.worker().start()
    pool.redis.delete(Job.key_for("req_1"))
    assert limited.queue.cancel("default", "req_1", "k1") == "gone"
    assert limited.queued() == ["req_2"]


def test_slot_of_a_job_that_nobody_waits_for_is_freed_by_the_next_request(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(2)
    pool.worker().start()
    pool.redis.delete(Job.key_for("req_1"))
    assert limited.queue.release_held("k1", "req_2") == 0
    assert limited.queued() == ["req_2"]


def test_slot_of_a_job_that_has_vanished_is_freed_for_one_that_starts(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue(pool="other")
    limited.enqueue()
    assert SimulatedPool(pool.redis, name="other").worker(9).start() == "req_1"
    pool.redis.delete(Job.key_for("req_1"))
    assert pool.worker().start() == "req_2"


def test_held_request_that_an_operator_has_deleted_is_passed_over(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(4)
    pool.redis.delete(Job.key_for("req_2"))
    Job.fetch("req_3", connection=pool.redis, serializer=JSONSerializer).cancel()
    worker = pool.worker()
    worker.start()
    assert worker.finish_and_start() == "req_4"
    assert worker.finish_and_start() == ""
    assert not pool.redis.exists("farm:limit:held:k1", "farm:limit:reserved:k1", "rq:deferred:chat:default")


def test_dead_fronts_held_requests_are_removed(pool: SimulatedPool, limited: LimitedKey):
    limited.enqueue_many(4, front="dead")
    limited.enqueue_many(1, front="alive")
    internals.purge_front(pool.redis, "dead")
    assert (limited.queued(), limited.held()) == (["req_5"], [])
    assert pool.redis.zcard("rq:deferred:chat:default") == 0


def test_only_beyond_max_waiting_a_request_is_refused(redis: Redis):
    limited = LimitedKey(redis, build_key(concurrency=2, max_waiting=3))
    limited.enqueue_many(5)
    refusal = limited.expect_refusal()
    assert refusal.limit == "concurrency"
    limited.queue.withdraw("default", "req_1")
    limited.enqueue()


def test_refused_requests_are_told_to_come_back_one_after_the_other(redis: Redis):
    limited = LimitedKey(redis, build_key(concurrency=2, max_waiting=0))
    redis.hset(keys.limits_in_force("k1"), "interval", 2)
    limited.enqueue_many(2, at=0.0)
    waits = [limited.expect_refusal(at=1.0).wait_seconds for _ in range(100)]
    assert waits[:29] == pytest.approx([2 * number for number in range(1, 30)])
    assert max(waits) <= 60
    later = [wait for wait in waits[30:] if wait > 30]
    assert len({round(wait) for wait in later}) >= 15, "the rest is spread over half a minute"


def test_interval_between_ends_is_measured(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(4)
    worker = pool.worker()
    worker.start()
    for _ in range(2):
        worker.finish_and_start()
        pool.redis.hincrbyfloat(keys.limits_in_force("k1"), "ended_at", -5)
    worker.finish_and_start()
    limited.key = build_key(concurrency=1, max_waiting=0)
    assert 4 < limited.expect_refusal().wait_seconds <= 30, "more when this test is slow"


def test_request_beyond_the_rate_is_held_until_the_minute_has_moved_on(redis: Redis):
    limited = LimitedKey(redis, build_key(rpm=2))
    for at in (0.0, 10.0):
        assert limited.enqueue(at=at).recheck_seconds == 0
    third, fourth = limited.enqueue(at=35.0), limited.enqueue(at=50.0)
    assert third.recheck_seconds == pytest.approx(25, abs=0.1)
    assert fourth.recheck_seconds == pytest.approx(20, abs=0.1)
    assert limited.release_at(59.0, "req_3") == pytest.approx(1, abs=0.1)
    assert limited.queued() == ["req_1", "req_2"]
    assert limited.release_at(60.1, "req_3") == 0
    assert (limited.queued(), limited.held()) == (["req_1", "req_2", "req_3"], ["req_4"])
    assert limited.release_at(60.1, "req_4") == pytest.approx(9.9, abs=0.1)


def test_no_request_overtakes_held_ones(redis: Redis):
    limited = LimitedKey(redis, build_key(rpm=1))
    limited.enqueue_many(2, at=0.0)
    # The front of the second one has not asked yet.
    assert limited.enqueue(at=60.5).recheck_seconds > 0
    assert (limited.queued(), limited.held()) == (["req_1", "req_2"], ["req_3"])


def test_rate_holds_only_what_fits_within_the_queue_timeout(redis: Redis):
    limited = LimitedKey(redis, build_key(rpm=2), queue_timeout=150.0)
    limited.enqueue_many(2, at=0.0)
    limited.enqueue_many(4, at=30.0)
    refusal = limited.expect_refusal(at=29.0)
    assert (refusal.limit, refusal.wait_seconds) == ("requests", 1)
    limited.enqueue(at=31.0)


def test_whole_backlog_of_a_rate_keeps_to_it(redis: Redis):
    limited = LimitedKey(redis, build_key(rpm=3))
    limited.enqueue_many(12, at=0.0)
    for minute in range(1, 4):
        assert len(limited.queued()) == 3 * minute
        limited.release_at(60 * minute - 0.5)
        assert len(limited.queued()) == 3 * minute
        limited.release_at(60 * minute + 0.5)
    assert len(limited.queued()) == 12


def test_tokens_that_are_given_back_let_the_next_request_go_on(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(tpm=100))
    limited.enqueue(tokens=60)
    assert limited.enqueue(tokens=60, deadline=time.time() + 600).recheck_seconds > 0
    worker = pool.worker()
    worker.start()
    assert worker.finish_and_start() == "req_2", "the first one has used none of the tokens reserved for it"


def test_tokens_per_minute_count_those_held_before(redis: Redis):
    limited = LimitedKey(redis, build_key(tpm=100), queue_timeout=130.0)
    limited.enqueue_many(3, at=0.0, tokens=100)
    assert limited.expect_refusal(at=0.0, tokens=100).limit == "tokens"
    limited.release_at(61.5)
    assert len(limited.queued()) == 2
    limited.enqueue(at=61.5, tokens=100)


def test_queue_of_a_stalled_pool_holds_no_slot(pool: SimulatedPool, limited: LimitedKey):
    limited.enqueue_many(4, pool="stalled")
    limited.enqueue_many(3)
    _, started = start_all(pool, 3)
    assert started == ["req_5", "req_6", ""]
    assert limited.held() == ["req_7"]
    assert limited.queued("stalled") == ["req_1", "req_2"]


def test_requests_that_another_pool_was_quicker_than_are_held_again_in_order(pool: SimulatedPool, limited: LimitedKey):
    limited.enqueue_many(3, pool="slow")
    limited.enqueue_many(2)
    workers, started = start_all(pool, 2)
    assert started == ["req_4", "req_5"]
    slow = SimulatedPool(pool.redis, name="slow")
    slow_worker = slow.worker(9)
    assert slow_worker.start() == ""
    assert (limited.queued("slow"), limited.held("interactive:slow")) == ([], ["req_1", "req_2", "req_3"])
    assert pool.redis.llen(queue_keys("slow")[0]) == 0, "no worker wakes for what can't start"
    assert workers[0].finish_and_start() == ""
    assert slow_worker.start() == "req_1"
    assert pool.redis.llen(queue_keys("slow")[0]) == 0


def test_waiting_batch_requests_keep_no_slot_from_interactive_ones(pool: SimulatedPool, limited: LimitedKey):
    limited.enqueue_many(4, band="batch")
    limited.enqueue_many(2)
    assert start_all(pool, 3)[1] == ["req_5", "req_6", ""]


def test_raised_and_removed_limits_apply_to_held_requests(redis: Redis, limited: LimitedKey):
    limited.enqueue_many(9)
    apply_limits(redis, build_key(concurrency=4, version=2))
    assert len(limited.queued()) == 4
    limited.enqueue()
    assert len(limited.queued()) == 4, "a front that has not read the new version changes nothing"
    apply_limits(redis, build_key(version=3))
    assert (len(limited.queued()), limited.held()) == (10, [])


def test_lowered_limit_applies_to_queued_requests(pool: SimulatedPool, limited: LimitedKey):
    limited.enqueue_many(2)
    apply_limits(pool.redis, build_key(concurrency=1, version=2))
    assert start_all(pool, 2)[1] == ["req_1", ""]
    assert limited.held() == ["req_2"]


def test_other_keys_are_served_while_requests_are_held(pool: SimulatedPool):
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(20)
    other = pool.enqueue("other", 3)
    assert start_all(pool, 4)[1] == ["req_1", *other]


def test_bodies_of_held_requests_are_counted(redis: Redis):
    limited = LimitedKey(redis, build_key(concurrency=1))
    limited.enqueue_many(3, body=b"small")
    assert redis.hget("farm:body-sums", "total") == b"10"
    limited.queue.withdraw("default", "req_2")
    assert redis.hget("farm:body-sums", "total") == b"5"


def test_repeated_enqueue_holds_once(limited: LimitedKey):
    limited.enqueue_many(3)
    limited.count = 2
    assert limited.enqueue().recheck_seconds > 0
    assert limited.held() == ["req_3"]


def test_front_looks_in_time_for_a_slot_that_nobody_gives_back(redis: Redis, limited: LimitedKey):
    limited.enqueue_many(2)
    assert limited.enqueue().recheck_seconds == 30


def test_worker_that_runs_an_operators_job_needs_no_slot(pool: SimulatedPool):
    """A held job that an operator puts into RQ's queue is started at once, and held no more."""
    limited = LimitedKey(pool.redis, build_key(concurrency=1))
    limited.enqueue_many(2)
    first, second = pool.worker(1), pool.worker(2)
    assert first.start() == "req_1"
    pool.redis.rpush(CHAT_QUEUE, "req_2")
    assert second.start() == "req_2"
    assert limited.held() == []


@pytest.fixture(autouse=True)
def no_slot_leaks(redis: Redis) -> Iterator[None]:
    """No held queue is left without its entry in the set of them, and none of RQ's deferred jobs is not held."""
    yield
    lists = redis.keys("farm:limit:held:k1:*")
    assert {b"farm:limit:held:k1:" + line for line in redis.smembers("farm:limit:held:k1")} == set(lists)
    held = {job for name in lists for job in redis.lrange(name, 0, -1)}
    assert {job for name in redis.keys("rq:deferred:*") for job in redis.zrange(name, 0, -1)} == held
