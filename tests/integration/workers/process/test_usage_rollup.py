"""The usage rollup adds log entries up in hourly and daily sums, and trims the log."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.observability import usage
from shared.observability.request_log import ENTRY_FIELD, RequestLog
from shared.observability.usage import SumsQuery, UsageSums
from tests.builders import build_log_entry
from tests.own_redis import count_sends
from workers.process import usage_rollup
from workers.process.usage_rollup import UsageRollup


def build_rollup(redis: Redis, entries: int = 1000, log_days: float = 7) -> UsageRollup:
    return UsageRollup(redis, entries, log_days, 31)


def last_hour(**changes) -> SumsQuery:
    now = time.time()
    return SumsQuery(**{"since": now - 3600, "until": now, **changes})


def test_sums_are_kept_by_key_pool_model_and_credential(redis: Redis):
    RequestLog(redis).write(
        [
            build_log_entry(1),
            build_log_entry(2, key="k2", model="n", credential="c2"),
            build_log_entry(3, status=429, code="queue_full", prompt_tokens=0, completion_tokens=0, credential=""),
            build_log_entry(4, estimated=1),
        ]
    )
    assert build_rollup(redis).roll_up() == 4
    sums = UsageSums(redis)
    (total,) = sums.query(last_hour())
    assert (total["requests"], total["failed"], total["total_tokens"], total["estimated_tokens"]) == (4, 1, 45, 15)
    by_key = {row["key"]: row["requests"] for row in sums.query(last_hour(group_by=("key",)))}
    assert by_key == {"k1": 3, "k2": 1}
    assert [row["model"] for row in sums.query(last_hour(group_by=("model",), filters={"key": "k2"}))] == ["n"]
    by_credential = {row["credential"]: row["total_tokens"] for row in sums.query(last_hour(group_by=("credential",)))}
    assert by_credential == {"c1": 30, "c2": 15}
    (day,) = sums.query(last_hour(group_by=("time",), step="day", since=time.time()))
    assert day["time"] % 86_400 == 0
    assert redis.hget(keys.LAST_USED, "k2")


def test_year_of_hours_is_read_in_a_few_round_trips(own_redis: Redis):
    RequestLog(own_redis).write([build_log_entry(1)])
    build_rollup(own_redis).roll_up()
    with count_sends(own_redis) as count:
        (total,) = UsageSums(own_redis).query(last_hour(since=0))
    assert total["requests"] == 1
    assert count.sends < 100


def test_whole_days_are_read_in_place_of_their_hours(redis: Redis):
    entry = build_log_entry(1)
    day = int(time.time()) // 86_400 * 86_400 - 2 * 86_400
    for hour in range(-3, 27):
        redis.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry.encode()}, id=f"{(day + 3600 * hour + 60) * 1000}-0")
    build_rollup(redis).roll_up()
    asked = {"since": day - 7200, "until": day + 86_400 + 3599}
    redis.config_resetstat()
    (total,) = UsageSums(redis).query(last_hour(**asked))
    assert (total["requests"], redis.info("commandstats")["cmdstat_hgetall"]["calls"]) == (2 + 24 + 1, 4)
    by_hour = UsageSums(redis).query(last_hour(group_by=("time",), **asked))
    assert [row["time"] for row in by_hour] == [day + 3600 * hour for hour in range(-2, 25)]


def test_today_so_far_is_read_in_place_of_its_hours(redis: Redis):
    today = int(time.time()) // 86_400 * 86_400
    entry = build_log_entry(1)
    for at in (today - 3600, *range(today, int(time.time()), 3600)):
        redis.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry.encode()}, id=f"{at * 1000}-0")
    read = build_rollup(redis).roll_up()
    redis.config_resetstat()
    (total,) = UsageSums(redis).query(last_hour(since=today - 3600))
    assert (total["requests"], redis.info("commandstats")["cmdstat_hgetall"]["calls"]) == (read, 2)


def test_hours_are_read_from_the_newest_on_as_far_as_they_are_wanted(redis: Redis):
    now = int(time.time())
    for hours in (2, 1, 0):
        entry = build_log_entry(hours)
        redis.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry.encode()}, id=f"{(now - 3600 * hours) * 1000}-0")
    build_rollup(redis).roll_up()
    redis.config_resetstat()
    newest = UsageSums(redis).sum_up_newest_first(last_hour(since=now - 7200, group_by=("key", "time")))
    assert [group.names for group in next(newest)] == [("k1", now // 3600 * 3600)]
    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
    assert [group.names[1] for groups in newest for group in groups] == [(now // 3600 - n) * 3600 for n in (1, 2)]


def test_one_account_is_summed_up_by_its_own_fields(redis: Redis):
    RequestLog(redis).write([build_log_entry(number, credential=f"c{number % 9}") for number in range(90)])
    build_rollup(redis).roll_up()
    redis.config_resetstat()
    query = last_hour(group_by=("credential",), filters={"pool": "p", "credential": "c4"})
    (row,) = UsageSums(redis).query(query)
    assert (row["credential"], row["requests"], row["total_tokens"]) == ("c4", 10, 150)
    assert "cmdstat_hgetall" not in redis.info("commandstats")
    assert UsageSums(redis).query(last_hour(filters={"pool": "p", "credential": "none"})) == []


def test_entry_is_added_up_once_by_several_processes(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage_rollup, "BATCH_ENTRIES", 7)
    RequestLog(redis).write([build_log_entry(i) for i in range(50)])
    assert sum(build_rollup(redis).roll_up() for _ in range(3)) == 50
    RequestLog(redis).write([build_log_entry(99)])
    assert build_rollup(redis).roll_up() == 1
    (total,) = UsageSums(redis).query(last_hour())
    assert (total["requests"], total["total_tokens"]) == (51, 51 * 15)


def test_log_is_trimmed_by_number_and_age_and_sums_stay(redis: Redis):
    RequestLog(redis).write([build_log_entry(i) for i in range(3000)])
    build_rollup(redis, entries=1000).trim()
    assert 1000 <= redis.xlen(keys.REQUEST_LOG) <= 1200
    time.sleep(0.01)
    build_rollup(redis, log_days=1e-9).trim()
    assert redis.xlen(keys.REQUEST_LOG) < 200
    assert UsageSums(redis).query(last_hour())[0]["requests"] == 3000


def test_made_up_model_names_are_summed_as_others(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage_rollup, "MAX_SUM_FIELDS", 60)
    for number in range(100):
        RequestLog(redis).write([build_log_entry(number, model=f"made-up-{number}", credential="")])
        build_rollup(redis).roll_up()
    sums = UsageSums(redis).query(last_hour(group_by=("model",)))
    assert 18 < len(sums) < 30
    assert sum(row["requests"] for row in sums) == 100
    others = sum(row["requests"] for row in sums if row["model"] == "(others)")
    RequestLog(redis).write([build_log_entry(number, model=f"more-{number}", credential="") for number in range(5)])
    build_rollup(redis).roll_up()
    after = UsageSums(redis).query(last_hour(group_by=("model",)))
    assert sum(row["requests"] for row in after if row["model"] == "(others)") == others + 5
    assert next(row for row in sums if row["model"] == "(others)")["requests"] > 70


def test_sums_expire(redis: Redis):
    RequestLog(redis).write([build_log_entry(1)])
    build_rollup(redis).roll_up()
    now = int(time.time())
    hour, day = keys.usage_hour(now - now % 3600), keys.usage_day(now - now % 86_400)
    assert redis.ttl(hour) == pytest.approx(31 * 86_400, abs=5)
    assert redis.ttl(day) == pytest.approx(usage.DAY_SUMS_TTL_DAYS * 86_400, abs=5)


@pytest.mark.parametrize(
    "entry", [b"no json", b"[]", b"{}", b'["r","k","p","m","e","b",0,200,1,"c",0,0,0,1e17,0,0,"",""]']
)
def test_malformed_log_entry_does_not_stop_the_rollup(redis: Redis, entry: bytes):
    redis.xadd(keys.REQUEST_LOG, {"e": entry})
    RequestLog(redis).write([build_log_entry(1)])
    assert build_rollup(redis).roll_up() == 2
    assert UsageSums(redis).query(last_hour())[0]["requests"] == 1


def test_names_that_callers_make_up_share_one_field(redis: Redis):
    RequestLog(redis).write(
        [
            *(
                build_log_entry(i, model=f"made-up-{i}", status=404, prompt_tokens=0, completion_tokens=0)
                for i in range(50)
            ),
            *(
                build_log_entry(i, model=f"odd-{i}", status=400, prompt_tokens=0, completion_tokens=0)
                for i in range(50)
            ),
            build_log_entry(100, model="real"),
            build_log_entry(101, model="real", status=400),
        ]
    )
    build_rollup(redis).roll_up()
    rows = UsageSums(redis).query(last_hour(group_by=("model",)))
    assert {row["model"]: row["requests"] for row in rows} == {"(unknown)": 100, "real": 2}
