"""The request log is read newest first, by filters."""

import time

import pytest
from redis import Redis

from shared import keys, names
from shared.observability.request_log import ENTRY_FIELD, LogFilter, RequestLog
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


def test_search_looks_at_a_bounded_part_and_goes_on_from_there(redis: Redis):
    log = RequestLog(redis)
    log.write([build_log_entry(i, key="quiet" if i < 3 else "busy") for i in range(50)])
    found, cursors = log.search(LogFilter(key="quiet"), 2, scanned=20), 1
    assert (found.entries, found.is_cut) == ([], True)
    while found.is_cut:
        found, cursors = log.search(LogFilter(key="quiet"), 2, found.next, scanned=20), cursors + 1
    assert [item.entry.request for item in found.entries] == ["req_2", "req_1"]
    last = log.search(LogFilter(key="quiet"), 2, found.next, scanned=20)
    assert ([item.entry.request for item in last.entries], last.next, cursors) == (["req_0"], "", 3)
    all_of_them = log.search(LogFilter(), 50, scanned=20_000)
    assert (len(all_of_them.entries), all_of_them.next, all_of_them.is_cut) == (50, "", False)


@pytest.mark.parametrize("model", ['say "hi"', "模型", "a\\b", "x"])
def test_entries_are_found_by_values_that_json_escapes(redis: Redis, model: str):
    log = RequestLog(redis)
    log.write([build_log_entry(1, model=model), build_log_entry(2, model="another")])
    assert [item.entry.request for item in log.read_newest_first(LogFilter(model=model))] == ["req_1"]


def test_request_is_found_without_reading_the_log_from_its_end(redis: Redis):
    now = int(time.time())
    ids = [names.new_request_id(now - 5000 + number) for number in range(5000)]
    with redis.pipeline() as pipe:
        for number, request_id in enumerate(ids):
            entry = build_log_entry(number, request=request_id).encode()
            pipe.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry}, id=f"{(now - 5000 + number) * 1000 + 700}-0")
        pipe.execute()
    redis.config_resetstat()
    (found,) = RequestLog(redis).search(LogFilter(request=ids[10]), 1).entries
    assert (found.entry.request, found.time) == (ids[10], now - 4990 + 0.7)
    calls = redis.info("commandstats")
    assert (calls["cmdstat_xrange"]["calls"], "cmdstat_xrevrange" in calls) == (1, False)
    assert RequestLog(redis).search(LogFilter(request=names.new_request_id(now - 100_000)), 1).entries == []
    former = "req_" + 32 * "4"
    RequestLog(redis).write([build_log_entry(1, request=former)])
    assert len(RequestLog(redis).search(LogFilter(request=former), 1, scanned=0).entries) == 1
