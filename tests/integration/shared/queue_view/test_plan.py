"""A plan is made from the requests of the past, as the request log has them."""

import json
import time
from typing import Any

import pytest
from redis import Redis

from shared import keys
from shared.observability.request_log import LogEntry
from shared.queue_view import past_load
from shared.queue_view.past_load import count_seconds, find_busiest_hour, measure_service_share, read_load
from shared.queue_view.plan import find_period, make_plan
from shared.queue_view.planner import Demand, Wish, go_on
from tests.builders import build_log_entry

#: An hour that is over, in seconds since the epoch.
HOUR = int(time.time() // 3600 - 2) * 3600


def log(redis: Redis, ended_at: float, count: int = 1, **fields: Any) -> None:
    """Writes an entry of a request that ended then; `count`: the requests that it stands for."""
    number = redis.xlen(keys.REQUEST_LOG)
    entry = build_log_entry(number, **{"pool": "default", "total_ms": 1000, **fields})
    values = {"e": entry.encode(), **({"n": count} if count > 1 else {})}
    redis.xadd(keys.REQUEST_LOG, values, id=f"{int(ended_at * 1000)}-{number}")


def read(redis: Redis) -> past_load.Load:
    return read_load(redis, "default", HOUR, HOUR + 3600, go_on)


def test_load_is_who_came_when_and_how_long_it_took(redis: Redis):
    log(redis, HOUR + 20, queue_ms=2000, total_ms=5000)
    log(redis, HOUR + 30, queue_ms=0, total_ms=12_000)
    # It waited and gave up: it would have taken the average.
    log(redis, HOUR + 40, queue_ms=20_000, total_ms=20_000, credential="", status=429, code="queue_timeout")
    for ignored in ({"pool": "other"}, {"key": "private-c1"}, {"credential": "", "status": 401, "total_ms": 0}):
        log(redis, HOUR + 50, **ignored)
    log(redis, HOUR + 50, 7, credential="", status=429, code="queue_full", total_ms=0)
    log(redis, HOUR + 4000)
    load = read(redis)
    assert load.demands == [Demand(HOUR + 15, 3.0), Demand(HOUR + 18, 12.0), Demand(HOUR + 20, 7.5)]
    assert (load.refused, load.is_cut, load.mean_seconds) == (7, False, 7.5)


@pytest.mark.parametrize(
    ("tried", "seconds"),
    [("", 3.0), ("c1:cut:0:500:100", 3.5), ("c1:cut:0:500", 3.5), ("c1:cut:0:500:100 c2:cut:0:3000:2000", 3.5)],
)
def test_failed_attempts_take_time_and_the_last_one_is_counted_once(tried: str, seconds: float):
    assert count_seconds(LogEntry("req_1", "k", credential="c", queue_ms=2000, total_ms=5000, tried=tried)) == seconds


def test_others_get_their_turn_while_the_log_is_read(redis: Redis):
    pauses: list[None] = []
    for _ in range(past_load.ENTRIES_BETWEEN_PAUSES + 1):
        log(redis, HOUR + 20)
    read_load(redis, "default", HOUR, HOUR + 3600, lambda: pauses.append(None))
    assert len(pauses) == 2


def test_only_the_latest_requests_of_a_long_period_are_taken(redis: Redis):
    for second in (10, 20, 30):
        log(redis, HOUR + second)
    load = read_load(redis, "default", HOUR, HOUR + 3600, go_on, most=2)
    assert ([demand.arrived_at for demand in load.demands], load.is_cut) == ([HOUR + 19, HOUR + 29], True)
    assert load.since >= HOUR + 10


def test_log_full_of_others_is_not_read_to_its_end(redis: Redis):
    log(redis, HOUR + 10)
    for second in range(20, 30):
        log(redis, HOUR + second, pool="other")
    load = read_load(redis, "default", HOUR, HOUR + 3600, go_on, most=2)
    assert (load.demands, load.is_cut) == ([], True)


def test_plan_says_how_many_accounts_would_have_done(redis: Redis):
    for number in range(40):
        log(redis, HOUR + 60 + number // 10 * 100, total_ms=1000)
    redis.hset(keys.credentials("default"), mapping={"c1": "active", "c2": "active", "c3": "dead"})
    for at, seconds in ((HOUR, {"busy": 0}), (HOUR + 60, {"busy": 30.0, "idle": 15.0, "resting": 15.0})):
        totals = {"now": {"default": {}}, "account_seconds": {"default": seconds}}
        redis.xadd(keys.samples(60), {"e": json.dumps(totals)}, id=f"{at}000-0")
    plan = make_plan(redis, "default", HOUR, HOUR + 3600, Wish(1.0, 1.0))
    # Ten at once, a second each, may wait for one round.
    assert (plan.requests, plan.accounts, plan.present, plan.service_share) == (40, 5, 2, 0.75)
    assert plan.accounts_with_rests == 7
    assert {outlook.accounts: outlook.wait for outlook in plan.outlooks} == {2: 4.0, 4: 2.0, 5: 1.0, 6: 1.0, 10: 0.0}
    assert plan.accounts_by_erlang_c is not None
    assert measure_service_share(redis, "other", HOUR, HOUR + 3600) is None


def test_there_is_no_plan_without_a_load(redis: Redis):
    plan = make_plan(redis, "default", HOUR, HOUR + 3600, Wish())
    assert (plan.requests, plan.accounts, plan.accounts_by_erlang_c, plan.outlooks) == (0, None, None, [])


def test_busiest_hour_is_found_by_the_sums(redis: Redis):
    for hour, requests in ((HOUR - 7200, 5), (HOUR - 3600, 9), (HOUR, 7)):
        redis.hset(keys.usage_hour(hour), "\x1f".join(("k", "requests", "key", "default", "m")), requests)
    assert find_busiest_hour(redis, "default", HOUR - 9000, HOUR + 9000) == HOUR - 3600
    assert find_busiest_hour(redis, "other", HOUR - 9000, HOUR + 9000) == 0
    assert find_period(redis, "default", "busiest-hour") == (HOUR - 3600, HOUR)
    since, until = find_period(redis, "other", "busiest-hour")
    assert until - since == 24 * 3600
