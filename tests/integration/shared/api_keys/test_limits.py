"""Redis admits requests within the limits of their key, and refuses the others where none may wait."""

import json
import time
from typing import Any

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import (
    MAX_TOKENS_PER_REQUEST,
    LimitReached,
    LimitUsage,
    encode_demand,
    estimate_tokens,
    quota_period,
)
from shared.protocol.relay_queue import QueueFull, RelayQueue, open_rq_queue
from tests.builders import build_key, build_request
from tests.doubles import StockWorker
from workers.credentials.leases import Lease
from workers.jobs.job_records import JobCost, StartedJob
from workers.jobs.rq_bookkeeping import Bookkeeping

#: Time 0 of the tests, seconds since the epoch.
START = 1_800_000_000.0


class KeyAdmission:
    """Enqueues requests of one key at simulated times, in seconds."""

    def __init__(self, redis: Redis, key: ApiKey) -> None:
        self.redis = redis
        self.key = key
        self.queue = RelayQueue(redis, 1000)
        self.count = 0

    def enqueue_for_id(self, at: float = 0.0, tokens: int = 10, lasts: float = 60.0) -> str:
        self.enqueue(at, tokens, lasts)
        return f"req_{self.count}"

    def enqueue(self, at: float = 0.0, tokens: int = 10, lasts: float = 60.0) -> LimitUsage:
        now = START + at
        request = build_request(f"req_{self.count + 1}", enqueued_at=now, deadline=now + lasts, key=self.key.id)
        demand = encode_demand(self.key, tokens, now)
        if demand:
            demand = json.dumps({**json.loads(demand), "now": now}).encode()
        admission = self.queue.enqueue(request, b"body", demand)
        self.count += 1
        return admission.limit_usage

    def expect_refusal(self, at: float = 0.0, tokens: int = 10) -> LimitReached:
        """The refusal, as if it were the first one."""
        self.redis.hdel(keys.limits_in_force(self.key.id), "retry_at")
        with pytest.raises(LimitReached) as caught:
            self.enqueue(at, tokens)
        return caught.value

    def quota(self) -> dict[str, int]:
        fields = self.redis.hgetall(keys.quota(self.key.id))
        return {name.decode(): int(value) for name, value in fields.items() if name not in (b"period", b"since")}


def test_key_without_limits_leaves_nothing_in_redis(redis: Redis):
    admission = KeyAdmission(redis, build_key())
    assert admission.enqueue() == LimitUsage()
    assert not redis.keys("farm:limit:*")
    assert not redis.keys("farm:quota:*")
    assert redis.hget(Job.key_for("req_1"), "farm_limited") is None


def test_requests_per_minute_are_counted_in_a_sliding_window(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=3, max_waiting=0))
    assert [admission.enqueue(at).requests for at in (0, 10, 20)] == [1, 2, 3]
    refusal = admission.expect_refusal(30)
    assert (refusal.limit, refusal.wait_seconds, refusal.usage.requests) == ("requests", pytest.approx(30), 3)
    assert refusal.usage.requests_reset == pytest.approx(50)
    assert admission.expect_refusal(59.9).wait_seconds == pytest.approx(0.1, abs=0.001)
    assert admission.enqueue(60.001).requests == 3
    assert admission.expect_refusal(60.002).wait_seconds == pytest.approx(9.998)


def test_no_minute_ever_holds_more_requests_than_the_limit(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=20, max_waiting=0))
    admitted: list[float] = []
    for tenth in range(1800):
        try:
            admission.enqueue(tenth / 10)
            admitted.append(tenth / 10)
        except LimitReached:
            continue
    assert max(sum(at <= other < at + 60 for other in admitted) for at in admitted) == 20
    assert len(admitted) == 60


def test_lowered_limit_applies_at_once(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=5, max_waiting=0))
    for at in range(5):
        admission.enqueue(at)
    admission.key = build_key(rpm=2, max_waiting=0)
    assert admission.expect_refusal(10).wait_seconds == pytest.approx(53)


def test_tokens_per_minute_are_reserved_and_then_corrected(redis: Redis):
    admission = KeyAdmission(redis, build_key(tpm=100, max_waiting=0))
    first = admission.enqueue_for_id(0, tokens=60)
    refusal = admission.expect_refusal(1.5, tokens=60)
    assert (refusal.limit, refusal.usage.tokens) == ("tokens", 60)
    assert refusal.wait_seconds == 2, "what is only reserved may be given back at any moment"
    finish(redis, first, JobCost(30, served=True))
    assert admission.enqueue(2, tokens=60).tokens == 90
    assert admission.expect_refusal(3, tokens=20).limit == "tokens"


def test_request_above_the_token_limit_waits_for_an_empty_minute(redis: Redis):
    admission = KeyAdmission(redis, build_key(tpm=100, max_waiting=0))
    large = admission.enqueue_for_id(0, tokens=500)
    assert admission.expect_refusal(9, tokens=1).usage.tokens == 100, "it reserves the whole limit, and no more"
    finish(redis, large, JobCost(500, served=True))
    assert admission.expect_refusal(10, tokens=1).wait_seconds == pytest.approx(51)
    admission.enqueue(61.5, tokens=500)


def test_concurrency_is_limited_until_a_request_ends(redis: Redis):
    admission = KeyAdmission(redis, build_key(concurrency=2, max_waiting=0))
    first = admission.enqueue_for_id()
    admission.enqueue_for_id()
    assert admission.expect_refusal().limit == "concurrency"
    finish(redis, first, JobCost(5, served=True))
    third = admission.enqueue_for_id()
    assert admission.expect_refusal().limit == "concurrency"
    assert admission.queue.withdraw("default", third)
    admission.enqueue_for_id()


def test_concurrency_slots_of_lost_requests_are_freed(redis: Redis):
    admission = KeyAdmission(redis, build_key(concurrency=2, quota_tokens=1000, max_waiting=0))
    for _ in range(2):
        start(redis, admission.enqueue_for_id(tokens=100))
    redis.delete(Job.key_for("req_1"))
    admission.enqueue_for_id(tokens=100)
    assert admission.expect_refusal().limit == "concurrency"
    assert admission.quota()["reserved"] == 200
    # The other two are past their deadlines, so their slots are free although their jobs are still there.
    admission.enqueue(200.0, tokens=100)
    assert admission.quota() == {"tokens": 0, "reserved": 100, "requests": 1}


def test_quota_overshoots_by_at_most_one_reservation(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_tokens=100))
    ids = [admission.enqueue_for_id(tokens=40) for _ in range(3)]
    assert admission.quota() == {"tokens": 0, "reserved": 120, "requests": 3}
    refusal = admission.expect_refusal()
    assert (refusal.limit, refusal.wait_seconds) == ("reserved", 2)
    for request_id in ids:
        finish(redis, request_id, JobCost(30, served=True))
    assert admission.quota() == {"tokens": 90, "reserved": 0, "requests": 3}
    finish(redis, admission.enqueue_for_id(tokens=40), JobCost(40, served=True))
    assert admission.expect_refusal().limit == "quota_tokens"


def test_failed_request_costs_nothing(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_tokens=100, quota_requests=2))
    finish(redis, admission.enqueue_for_id(), JobCost())
    admission.queue.cancel("default", admission.enqueue_for_id())
    fail(redis, admission.enqueue_for_id())
    assert admission.quota() == {"tokens": 0, "reserved": 0, "requests": 0}
    finish(redis, admission.enqueue_for_id(), JobCost(7, served=True))
    finish(redis, admission.enqueue_for_id(), JobCost(7, served=True))
    assert admission.expect_refusal().limit == "quota_requests"


def test_quota_starts_again_with_its_period(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_requests=1, quota_reset="daily", quota_zone="Asia/Tokyo"))
    running = admission.enqueue_for_id()
    assert admission.expect_refusal().limit == "reserved"
    finish(redis, running, JobCost(7, served=True))
    assert admission.expect_refusal().limit == "quota_requests"
    admission.enqueue(86_400)
    assert admission.quota()["requests"] == 1


def test_a_front_whose_clock_is_behind_does_not_reset_the_quota(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_requests=2, quota_reset="daily"))
    midnight = 86_400 - START % 86_400
    finish(redis, admission.enqueue_for_id(midnight - 5), JobCost(7, served=True))
    finish(redis, admission.enqueue_for_id(midnight + 5), JobCost(7, served=True))
    finish(redis, admission.enqueue_for_id(midnight - 4), JobCost(7, served=True))
    assert admission.expect_refusal(midnight + 6).limit == "quota_requests"
    assert admission.expect_refusal(midnight - 3).limit == "quota_requests"
    # Long after, an earlier period is no skew: the zone has been changed, or a clock was wrong by days.
    redis.hincrby(keys.quota("k1"), "since", -601)
    admission.enqueue(midnight - 2)
    assert admission.quota()["requests"] == 1


def test_another_kind_of_period_starts_again(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_requests=1, quota_reset="weekly"))
    finish(redis, admission.enqueue_for_id(), JobCost(7, served=True))
    admission.key = build_key(quota_requests=1, quota_reset="daily")
    admission.enqueue()


def test_jobs_of_a_key_with_many_requests_are_looked_up_once_a_second(redis: Redis):
    admission = KeyAdmission(redis, build_key(concurrency=60, max_waiting=0))
    for _ in range(60):
        start(redis, admission.enqueue_for_id())
    before = redis.info("commandstats")["cmdstat_exists"]["calls"]
    for _ in range(5):
        assert admission.expect_refusal().limit == "concurrency"
    assert redis.info("commandstats")["cmdstat_exists"]["calls"] - before < 2 * 60
    redis.delete(Job.key_for("req_1"))
    redis.delete("farm:limit:looked:k1")
    admission.enqueue()


def test_quota_counts_no_withdrawn_request_of_an_earlier_period(redis: Redis):
    admission = KeyAdmission(redis, build_key(quota_requests=3, quota_reset="daily"))
    yesterday = [admission.enqueue_for_id() for _ in range(3)]
    admission.enqueue(86_400)
    for request_id in yesterday:
        admission.queue.withdraw("default", request_id)
    assert admission.quota()["requests"] == 1


def test_reservation_is_bounded_and_released_to_the_token(redis: Redis):
    assert estimate_tokens(100, 2**63 - 1, 128) == MAX_TOKENS_PER_REQUEST
    admission = KeyAdmission(redis, build_key(quota_tokens=10**15))
    (first, _) = (
        admission.enqueue_for_id(tokens=MAX_TOKENS_PER_REQUEST),
        admission.enqueue_for_id(tokens=MAX_TOKENS_PER_REQUEST),
    )
    assert admission.quota()["reserved"] == 2 * MAX_TOKENS_PER_REQUEST
    admission.queue.withdraw("default", first)
    assert admission.quota()["reserved"] == MAX_TOKENS_PER_REQUEST


@pytest.mark.parametrize(
    ("reset", "zone", "expected"),
    [
        ("never", "UTC", "-"),
        ("daily", "UTC", "2027-01-03"),
        ("daily", "Asia/Tokyo", "2027-01-04"),
        ("weekly", "UTC", "2026-W53"),
        ("weekly", "Asia/Tokyo", "2027-W01"),
        ("monthly", "America/New_York", "2027-01"),
    ],
)
def test_quota_periods_follow_the_calendar_of_the_time_zone(reset: str, zone: str, expected: str):
    sunday_evening = 1_798_999_200.0
    assert time.strftime("%a %F %R", time.gmtime(sunday_evening)) == "Sun 2027-01-03 18:00"
    assert quota_period(build_key(quota_reset=reset, quota_zone=zone), sunday_evening) == expected


def test_running_requests_of_a_key_without_a_limit_are_not_kept(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=1000))
    for at in range(0, 1000, 100):
        redis.delete(Job.key_for(admission.enqueue_for_id(at, lasts=1.0)))
    assert redis.zcard(keys.running_requests("k1")) <= 2


def test_refused_request_is_not_counted(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=10, tpm=1000, concurrency=10, quota_tokens=1000))
    admission.queue = RelayQueue(redis, 1)
    admission.enqueue()
    before = {name: redis.dump(name) for name in redis.keys("farm:*")}
    with pytest.raises(QueueFull):
        admission.enqueue()
    assert {name: redis.dump(name) for name in redis.keys("farm:*")} == before


def test_repeated_enqueue_is_counted_once(redis: Redis):
    admission = KeyAdmission(redis, build_key(rpm=10, concurrency=10, quota_requests=10))
    admission.enqueue()
    admission.count = 0
    admission.enqueue()
    assert redis.llen(keys.recent_requests("k1")) == 1
    assert admission.quota()["requests"] == 1


def finish(redis: Redis, job_id: str, cost: JobCost) -> None:
    bookkeeping, worker, started = start(redis, job_id)
    assert bookkeeping.finish(worker, started, ok=True, cost=cost)


def fail(redis: Redis, job_id: str) -> None:
    bookkeeping, worker, started = start(redis, job_id)
    bookkeeping.fail(worker, started, "why")


def start(redis: Redis, job_id: str) -> tuple[Bookkeeping, Any, StartedJob]:
    """Pops the job from the queue and starts it, as a worker does."""
    queue = open_rq_queue(redis, names.chat_queue("default"))
    bookkeeping = Bookkeeping(redis, "default")
    lease = Lease("default", "c1", "here:1")
    redis.set(lease.key, lease.value)
    redis.lrem(queue.key, 1, job_id)
    redis.rpush(queue.intermediate_queue_key, job_id)
    worker = StockWorker([queue], name="default.c1", connection=redis, serializer=JSONSerializer)
    started = bookkeeping.begin(worker, bookkeeping.create_execution(worker, job_id), 60, lease)
    assert started is not None
    return bookkeeping, worker, started


def test_fronts_whose_clocks_differ_share_one_minute(redis: Redis):
    """The window goes by the clock of Redis, whatever the fronts' clocks say."""
    queue, key = RelayQueue(redis, 1000), build_key(rpm=2, tpm=1000, max_waiting=0)
    real = time.time()
    usages = []
    for number, skew in enumerate((3600, -3600)):
        request = build_request(f"req_{number}", enqueued_at=real + skew, deadline=real + skew + 7200, key=key.id)
        usages.append(queue.enqueue(request, b"body", encode_demand(key, 10, real + skew)).limit_usage)
    assert [(usage.requests, usage.tokens) for usage in usages] == [(1, 10), (2, 20)]
    with pytest.raises(LimitReached) as caught:
        queue.enqueue(build_request("req_3", key=key.id), b"body", encode_demand(key, 10, real))
    assert 0 < caught.value.wait_seconds <= 60
    assert caught.value.usage.requests_reset <= 60
