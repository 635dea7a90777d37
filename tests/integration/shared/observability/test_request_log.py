"""The request log is read newest first, by filters."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.observability.request_log import LogFilter, RequestLog
from tests.builders import build_log_entry


def test_log_is_read_newest_first_and_filtered(redis: Redis):
    log = RequestLog(redis)
    log.write([build_log_entry(i, key=f"k{i % 2}", code="x" if i == 3 else "") for i in range(2500)])
    logged = list(log.read_newest_first(LogFilter()))
    assert [item.entry.request for item in logged] == [f"req_{i}" for i in reversed(range(2500))]
    assert len(list(log.read_newest_first(LogFilter(key="k1")))) == 1250
    assert [item.entry.request for item in log.read_newest_first(LogFilter(outcome="failed"))] == ["req_3"]
    assert len(list(log.read_newest_first(LogFilter(outcome="ok")))) == 2499
    older = list(log.read_newest_first(LogFilter(), before=logged[100].id))
    assert older[0].entry.request == logged[101].entry.request
    assert list(log.read_newest_first(LogFilter(since=time.time() + 1))) == []
    assert list(log.read_newest_first(LogFilter(until=time.time() - 60))) == []


def test_model_names_are_kept_short_and_printable(redis: Redis):
    RequestLog(redis).write([build_log_entry(1, model="a\x1f\ud800" + "x" * 1000)])
    (logged,) = RequestLog(redis).read_newest_first(LogFilter())
    assert logged.entry.model == "a??" + "x" * 197


def test_entry_survives_a_round_trip_through_redis(redis: Redis):
    entry = build_log_entry(1, model="mo delé", code="c", end="e", stream=1, band="batch")
    RequestLog(redis).write([entry])
    (logged,) = RequestLog(redis).read_newest_first(LogFilter())
    assert logged.entry == entry
    assert logged.to_dict()["time"] == pytest.approx(time.time(), abs=5)


def test_entries_that_cannot_be_read_are_skipped(redis: Redis):
    log = RequestLog(redis)
    log.write([build_log_entry(1)])
    for entry in ({"e": "not JSON"}, {"e": '["req_2", "k1", 3]'}, {"f": "of another version"}):
        redis.xadd(keys.REQUEST_LOG, entry)
    log.write([build_log_entry(2)])
    assert [item.entry.request for item in log.read_newest_first(LogFilter())] == ["req_2", "req_1"]
