"""A front writes each log entry once, also when a reply of Redis is lost."""

import time

import gevent
import pytest
from flask import Flask, g
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.errors import ApiError
from shared.observability.refusals import read_refusals, record_refusals
from shared.observability.request_log import LogFilter, RequestLog
from shared.observability.usage import SumsQuery, UsageSums
from tests.builders import build_request
from web.request.log_buffer import RequestLogBuffer
from workers.process.usage_rollup import UsageRollup


class LossyRequestLog(RequestLog):
    """Writes, and then loses the reply of Redis."""

    loses_replies = True

    def write(self, entries, batch=""):
        super().write(entries, batch)
        if self.loses_replies:
            raise RedisConnectionError("lost")


def test_batch_is_written_once_when_its_reply_is_lost(redis: Redis):
    log = LossyRequestLog(redis)
    buffer = RequestLogBuffer(log)
    buffer.record_ended(build_request(), ApiError(429, "queue_timeout", "x"))
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            buffer.flush()
    log.loses_replies = False
    buffer.record_ended(build_request("req_2"), ApiError(429, "queue_full", "x"))
    buffer.flush()
    buffer.flush()
    codes = [item.entry.code for item in log.read_newest_first(LogFilter())][::-1]
    assert codes == ["queue_timeout", "queue_full"]


def test_two_greenlets_that_flush_lose_no_entry(redis: Redis):
    """The chore of each second, and a scrape of /metrics."""

    class SlowRequestLog(RequestLog):
        def write(self, entries, batch=""):
            gevent.sleep(0.01)
            super().write(entries, batch)

    buffer = RequestLogBuffer(SlowRequestLog(redis))
    for number in range(2500):
        buffer.record_ended(build_request(f"req_{number}"), ApiError(429, "queue_timeout", "x"))
    gevent.joinall([gevent.spawn(buffer.flush) for _ in range(4)], raise_error=True)
    assert redis.xlen(keys.REQUEST_LOG) == 2500


def test_refusals_of_a_key_that_hammers_are_summed_up(redis: Redis):
    buffer = RequestLogBuffer(RequestLog(redis))
    app = Flask("test")
    for key, code, times in (
        ("k1", "rate_limit_exceeded", 1000),
        ("k1", "queue_full", 2),
        ("k2", "rate_limit_exceeded", 6),
    ):
        for number in range(times):
            with app.app_context():
                g.request_id, g.endpoint = f"req_{number}", "/chat/completions"
                buffer.record_refused(key, ApiError(429, code, "x"))
    buffer.flush()
    stored = list(RequestLog(redis).read_newest_first(LogFilter()))
    assert sorted(item.count for item in stored if item.count > 1) == [995]
    assert (len(stored), sum(item.count for item in stored)) == (5 + 1 + 2 + 6, 1008)
    assert stored[0].to_dict()["count"] == stored[0].count
    UsageRollup(redis, 10_000, 7, 31).roll_up()
    rows = UsageSums(redis).query(SumsQuery(time.time() - 3600, time.time(), group_by=("key",)))
    assert {row["key"]: (row["requests"], row["failed"]) for row in rows} == {"k1": (1002, 1002), "k2": (6, 6)}


def test_refused_requests_are_counted_by_key_and_code_but_not_those_whose_caller_left(redis: Redis):
    buffer = RequestLogBuffer(RequestLog(redis))
    for code, status in (("queue_timeout", 429), ("queue_timeout", 429), ("client_gone", 499)):
        buffer.record_ended(build_request(key="k1"), ApiError(status, code, "x"))
    refused = buffer.take_refused()
    assert refused == {("k1", "queue_timeout"): 2}
    assert buffer.take_refused() == {}
    for _ in range(2):
        record_refusals(redis, refused)
    assert read_refusals(redis, "k1") == {"queue_timeout": 4}
    assert read_refusals(redis, "k2") == {}
