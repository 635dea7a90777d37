"""The limits of an API key, as Redis keeps them: what is admitted, refused and for how long, and what is given back."""

import time
from typing import Any

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys, names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import LimitReached, LimitUsage, encode_demand, quota_period
from shared.protocol.relay_queue import QueueFull, RelayQueue, open_rq_queue
from tests.integration.shared.protocol.test_relay_queue import request
from tests.integration.workers.jobs.test_rq_bookkeeping import Stock
from workers.credentials.leases import Lease
from workers.jobs.job_records import JobCost, StartedJob
from workers.jobs.rq_bookkeeping import Bookkeeping

START = 1_800_000_000.0


def a_key(**limits: Any) -> ApiKey:
    return ApiKey(id="k1", hint="sk-…", created_at=0, **limits)


class Desk:
    """Admits requests of one key at times that a test chooses."""

    def __init__(self, redis: Redis, key: ApiKey) -> None:
        self.redis = redis
        self.key = key
        self.queue = RelayQueue(redis, 1000)
        self.count = 0

    def admit(self, at: float = 0.0, tokens: int = 10, lasts: float = 60.0) -> str:
        self.ask(at, tokens, lasts)
        return f"req_{self.count}"

    def ask(self, at: float = 0.0, tokens: int = 10, lasts: float = 60.0) -> LimitUsage:
        now = START + at
        asked = request(f"req_{self.count + 1}", enqueued_at=now, deadline=now + lasts, key=self.key.id)
        admitted = self.queue.enqueue(asked, b"body", encode_demand(self.key, tokens, now))
        self.count += 1
        return admitted.limit_usage

    def refused(self, at: float = 0.0, tokens: int = 10) -> LimitReached:
        with pytest.raises(LimitReached) as caught:
            self.ask(at, tokens)
        return caught.value

    def quota(self) -> dict[str, int]:
        found = self.redis.hgetall(keys.quota(self.key.id))
        return {name.decode(): int(value) for name, value in found.items() if name != b"period"}


def test_a_key_without_limits_leaves_nothing_behind(redis: Redis):
    desk = Desk(redis, a_key())
    assert desk.ask() == LimitUsage()
    assert not redis.keys("farm:limit:*")
    assert not redis.keys("farm:quota:*")
    assert redis.hget(Job.key_for("req_1"), "farm_limited") is None


def test_requests_of_a_minute_are_counted_in_a_window_that_slides(redis: Redis):
    desk = Desk(redis, a_key(rpm=3))
    assert [desk.ask(at).requests for at in (0, 10, 20)] == [1, 2, 3]
    full = desk.refused(30)
    assert (full.limit, full.wait_seconds, full.usage.requests) == ("requests", pytest.approx(30), 3)
    assert full.usage.requests_reset == pytest.approx(50)
    assert desk.refused(59.9).wait_seconds == pytest.approx(0.1, abs=0.001)
    assert desk.ask(60.001).requests == 3
    assert desk.refused(60.002).wait_seconds == pytest.approx(9.998)


def test_no_window_of_a_minute_holds_more_whatever_comes(redis: Redis):
    desk = Desk(redis, a_key(rpm=20))
    admitted: list[float] = []
    for tenth in range(1800):
        try:
            desk.ask(tenth / 10)
            admitted.append(tenth / 10)
        except LimitReached:
            continue
    assert max(sum(at <= other < at + 60 for other in admitted) for at in admitted) == 20
    assert len(admitted) == 60


def test_a_limit_that_was_lowered_holds_at_once(redis: Redis):
    desk = Desk(redis, a_key(rpm=5))
    for at in range(5):
        desk.ask(at)
    desk.key = a_key(rpm=2)
    assert desk.refused(10).wait_seconds == pytest.approx(53)


def test_tokens_of_a_minute_are_reserved_and_corrected(redis: Redis):
    desk = Desk(redis, a_key(tpm=100))
    first = desk.admit(0, tokens=60)
    full = desk.refused(1.5, tokens=60)
    assert (full.limit, full.usage.tokens) == ("tokens", 60)
    assert full.wait_seconds == pytest.approx(59.5)
    finish(redis, first, JobCost(30, served=True))
    assert desk.ask(2, tokens=60).tokens == 90
    assert desk.refused(3, tokens=20).limit == "tokens"


def test_a_request_larger_than_the_minute_waits_for_an_empty_one(redis: Redis):
    desk = Desk(redis, a_key(tpm=100))
    assert desk.ask(0, tokens=500).tokens == 500
    assert desk.refused(10, tokens=1).wait_seconds == pytest.approx(51)
    desk.ask(61.5, tokens=500)


def test_as_many_at_once_as_may_be_and_one_that_ends_makes_room(redis: Redis):
    desk = Desk(redis, a_key(concurrency=2))
    first = desk.admit()
    desk.admit()
    assert desk.refused().limit == "concurrency"
    finish(redis, first, JobCost(5, served=True))
    third = desk.admit()
    assert desk.refused().limit == "concurrency"
    assert desk.queue.withdraw("default", third)
    desk.admit()


def test_places_are_never_lost(redis: Redis):
    desk = Desk(redis, a_key(concurrency=2, quota_tokens=1000))
    redis.delete(Job.key_for(desk.admit(tokens=100)))
    desk.admit(tokens=100)
    desk.admit(tokens=100)
    assert desk.refused().limit == "concurrency"
    assert desk.quota()["reserved"] == 200
    # The other two are over by the clock, should their jobs stay for ever.
    desk.ask(200.0, tokens=100)
    assert desk.quota() == {"tokens": 0, "reserved": 100, "requests": 1}


def test_a_quota_ends_when_it_is_used_up_and_overshoots_by_one_reservation_at_most(redis: Redis):
    desk = Desk(redis, a_key(quota_tokens=100))
    ids = [desk.admit(tokens=40) for _ in range(3)]
    assert desk.quota() == {"tokens": 0, "reserved": 120, "requests": 3}
    assert desk.refused().limit == "quota_tokens"
    for one in ids:
        finish(redis, one, JobCost(30, served=True))
    assert desk.quota() == {"tokens": 90, "reserved": 0, "requests": 3}
    finish(redis, desk.admit(tokens=40), JobCost(40, served=True))
    assert desk.refused().limit == "quota_tokens"


def test_a_request_that_failed_has_cost_nothing(redis: Redis):
    desk = Desk(redis, a_key(quota_tokens=100, quota_requests=2))
    finish(redis, desk.admit(), JobCost())
    desk.queue.cancel("default", desk.admit())
    fail(redis, desk.admit())
    assert desk.quota() == {"tokens": 0, "reserved": 0, "requests": 0}
    finish(redis, desk.admit(), JobCost(7, served=True))
    finish(redis, desk.admit(), JobCost(7, served=True))
    assert desk.refused().limit == "quota_requests"


def test_a_quota_begins_anew_with_its_period(redis: Redis):
    desk = Desk(redis, a_key(quota_requests=1, quota_reset="daily", quota_zone="Asia/Tokyo"))
    desk.ask()
    assert desk.refused().limit == "quota_requests"
    desk.ask(86_400)
    assert desk.quota()["requests"] == 1


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
def test_periods_follow_the_calendar_of_the_zone(reset: str, zone: str, expected: str):
    sunday_evening = 1_798_999_200.0
    assert time.strftime("%a %F %R", time.gmtime(sunday_evening)) == "Sun 2027-01-03 18:00"
    assert quota_period(a_key(quota_reset=reset, quota_zone=zone), sunday_evening) == expected


def test_what_is_refused_counts_for_nothing(redis: Redis):
    desk = Desk(redis, a_key(rpm=10, tpm=1000, concurrency=10, quota_tokens=1000))
    desk.queue = RelayQueue(redis, 1)
    desk.ask()
    before = {name: redis.dump(name) for name in redis.keys("farm:*")}
    with pytest.raises(QueueFull):
        desk.ask()
    assert {name: redis.dump(name) for name in redis.keys("farm:*")} == before


def test_asked_again_it_is_counted_once(redis: Redis):
    desk = Desk(redis, a_key(rpm=10, concurrency=10, quota_requests=10))
    desk.ask()
    desk.count = 0
    desk.ask()
    assert redis.llen(keys.recent_requests("k1")) == 1
    assert desk.quota()["requests"] == 1


def finish(redis: Redis, job_id: str, spent: JobCost) -> None:
    books, worker, begun = begin(redis, job_id)
    assert books.finish(worker, begun, ok=True, cost=spent)


def fail(redis: Redis, job_id: str) -> None:
    books, worker, begun = begin(redis, job_id)
    books.fail(worker, begun, "why")


def begin(redis: Redis, job_id: str) -> tuple[Bookkeeping, Any, StartedJob]:
    """Takes the job out of the queue and begins it, as a worker does."""
    queue = open_rq_queue(redis, names.chat_queue("default"))
    books = Bookkeeping(redis, "default")
    lease = Lease("default", "c1", "here:1")
    redis.set(lease.key, lease.value)
    redis.lrem(queue.key, 1, job_id)
    redis.rpush(queue.intermediate_queue_key, job_id)
    worker = Stock([queue], name="default.c1", connection=redis, serializer=JSONSerializer)
    begun = books.begin(worker, books.create_execution(worker, job_id), 60, lease)
    assert begun is not None
    return books, worker, begun
