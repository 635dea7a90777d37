"""What is kept of requests that have ended: the log, the sums, what each key has used; no prompt and no answer."""

import json
import time

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import encode_demand
from shared.observability import usage
from shared.observability.request_log import LogEntry, LogFilter, RequestLog
from shared.observability.usage import SumsQuery, UsageSums
from shared.protocol.messages import FrameKind
from tests.integration.harness import BODY, Workshop, answer
from tests.integration.shared.protocol.test_relay_queue import request
from tests.waiting import eventually
from workers.process import usage_rollup
from workers.process.usage_rollup import UsageRollup

KEY = ApiKey(id="k1", hint="", created_at=0, quota_tokens=10_000)


def logged(redis: Redis) -> list[LogEntry]:
    eventually(lambda: redis.xlen(keys.REQUEST_LOG))
    return [one.entry for one in RequestLog(redis).read_newest_first(LogFilter())]


def ask(workshop: Workshop, body: bytes = BODY, **changes) -> bytes:
    """The body of the answer to a request of KEY."""
    changes = {"key": "k1", "model": "m", "path": "/chat/completions", **changes}
    mailbox = workshop.hub.open("req_1")
    asked = request("req_1", channel=workshop.hub.channel("req_1"), **changes)
    workshop.queue.enqueue(asked, body, encode_demand(KEY, 500, asked.enqueued_at))
    frames = answer(mailbox)
    eventually(lambda: workshop.redis.xlen(keys.REQUEST_LOG))
    return b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)


def streaming(**fields) -> bytes:
    return json.dumps({**json.loads(BODY), "stream": True, **fields}).encode()


def saying(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_an_answer_is_logged_and_settled_with_what_the_upstream_reports(workshop: Workshop):
    reported = json.loads(ask(workshop))["usage"]
    (entry,) = logged(workshop.redis)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated) == (1, 1, 0)
    assert reported["total_tokens"] == 2
    assert (entry.request, entry.key, entry.pool, entry.model) == ("req_1", "k1", "default", "m")
    assert (entry.status, entry.attempts, entry.end, entry.code) == (200, 1, "done", "")
    assert entry.credential == workshop.id
    assert 0 <= entry.queue_ms <= entry.first_ms <= entry.total_ms < 10_000
    assert workshop.redis.hget(keys.quota("k1"), "tokens") == b"2"


def test_nothing_of_prompt_or_answer_is_logged(workshop: Workshop):
    ask(workshop)
    kept = repr(workshop.redis.xrange(keys.REQUEST_LOG))
    assert "Hello" not in kept
    assert "Uryyb" not in kept


def test_a_streams_usage_is_counted_and_hidden_from_who_did_not_ask(workshop: Workshop):
    workshop.upstream.pace(chunks=5)
    body = streaming(stream_options={"include_usage": True})
    hidden = ask(workshop, body, stream=True, hides_usage=True)
    assert b"usage" not in hidden
    assert hidden.endswith(b"data: [DONE]\n\n")
    (entry,) = logged(workshop.redis)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated, entry.stream) == (1, 1, 0, 1)


def test_a_stream_whose_caller_asked_shows_it(workshop: Workshop):
    assert b'"usage"' in ask(workshop, streaming(stream_options={"include_usage": True}), stream=True)


def test_what_no_upstream_reports_is_counted_and_marked(workshop: Workshop):
    ask(workshop, streaming(messages=saying("Hello brave new world")), stream=True)
    (entry,) = logged(workshop.redis)
    assert (entry.prompt_tokens, entry.estimated) == (4, 1)
    assert entry.completion_tokens > 4
    assert int(workshop.redis.hget(keys.quota("k1"), "tokens")) == 4 + entry.completion_tokens


def test_a_cut_stream_costs_what_came_of_it(workshop: Workshop):
    workshop.upstream.faults(cut=1)
    workshop.upstream.pace(chunks=8)
    ask(workshop, streaming(messages=saying("word " * 100)), stream=True)
    (entry,) = logged(workshop.redis)
    assert (entry.status, entry.code, entry.end, entry.estimated) == (200, "upstream_eof", "upstream_eof", 1)
    assert 20 < entry.completion_tokens < 300
    assert entry.prompt_tokens == pytest.approx(101, abs=2)


def test_a_failed_request_costs_nothing_and_is_logged_once(workshop: Workshop):
    workshop.upstream.faults(server_error=1)
    ask(workshop)
    (entry,) = logged(workshop.redis)
    assert (entry.status, entry.code, entry.attempts, entry.end) == (500, "upstream_error", 2, "upstream_error")
    found = workshop.redis.hmget(keys.quota("k1"), "tokens", "reserved", "requests")
    assert [int(number or 0) for number in found] == [0, 0, 0]


def test_an_upstreams_refusal_costs_nothing(workshop: Workshop):
    ask(workshop, b'{"model": "m", "messages": 3}')
    (entry,) = logged(workshop.redis)
    assert (entry.status, entry.end, entry.prompt_tokens) == (400, "done", 0)


def test_who_leaves_in_mid_stream_has_used_what_came(workshop: Workshop):
    workshop.upstream.pace(chunks=100, chunk_delay=0.05)
    mailbox = workshop.hub.open("req_1")
    asked = request("req_1", channel=workshop.hub.channel("req_1"), stream=True, key="k1", path="/chat/completions")
    workshop.queue.enqueue(asked, streaming(messages=saying("word " * 300)))
    eventually(lambda: mailbox.get(0.1))
    workshop.worker.runner.cancel("client_gone")
    (entry,) = logged(workshop.redis)
    assert (entry.status, entry.end, entry.code, entry.estimated) == (200, "client_gone", "client_gone", 1)
    assert 0 < entry.completion_tokens < 300


# Sums


def entry(number: int, **changes) -> LogEntry:
    values = {"request": f"req_{number}", "key": "k1", "pool": "p", "model": "m", "status": 200, "credential": "c1"}
    return LogEntry(**{**values, "prompt_tokens": 10, "completion_tokens": 5, **changes})


def an_adder(redis: Redis, entries: int = 1000, log_days: float = 7) -> UsageRollup:
    return UsageRollup(redis, entries, log_days, 31)


def today(**changes) -> SumsQuery:
    now = time.time()
    return SumsQuery(**{"since": now - 3600, "until": now, **changes})


def test_sums_are_by_key_pool_model_and_credential(redis: Redis):
    RequestLog(redis).write(
        [
            entry(1),
            entry(2, key="k2", model="n", credential="c2"),
            entry(3, status=429, code="queue_full", prompt_tokens=0, completion_tokens=0, credential=""),
            entry(4, estimated=1),
        ]
    )
    assert an_adder(redis).roll_up() == 4
    sums = UsageSums(redis)
    (total,) = sums.query(today())
    assert (total["requests"], total["failed"], total["total_tokens"], total["estimated_tokens"]) == (4, 1, 45, 15)
    by_key = {row["key"]: row["requests"] for row in sums.query(today(group_by=("key",)))}
    assert by_key == {"k1": 3, "k2": 1}
    assert [row["model"] for row in sums.query(today(group_by=("model",), filters={"key": "k2"}))] == ["n"]
    by_credential = {row["credential"]: row["total_tokens"] for row in sums.query(today(group_by=("credential",)))}
    assert by_credential == {"c1": 30, "c2": 15}
    (day,) = sums.query(today(group_by=("time",), step="day", since=time.time()))
    assert day["time"] % 86_400 == 0
    assert redis.hget(keys.LAST_USED, "k2")


def test_an_entry_is_added_up_once_whoever_asks(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage_rollup, "BATCH_ENTRIES", 7)
    RequestLog(redis).write([entry(i) for i in range(50)])
    assert sum(an_adder(redis).roll_up() for _ in range(3)) == 50
    RequestLog(redis).write([entry(99)])
    assert an_adder(redis).roll_up() == 1
    (total,) = UsageSums(redis).query(today())
    assert (total["requests"], total["total_tokens"]) == (51, 51 * 15)


def test_the_log_is_bounded_by_number_and_age_and_the_sums_stay(redis: Redis):
    RequestLog(redis).write([entry(i) for i in range(3000)])
    an_adder(redis, entries=1000).trim()
    assert 1000 <= redis.xlen(keys.REQUEST_LOG) <= 1200
    time.sleep(0.01)
    an_adder(redis, log_days=1e-9).trim()
    assert redis.xlen(keys.REQUEST_LOG) < 200
    assert UsageSums(redis).query(today())[0]["requests"] == 3000


def test_names_that_callers_make_up_do_not_fill_the_store(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage_rollup, "MAX_SUM_FIELDS", 60)
    for number in range(100):
        RequestLog(redis).write([entry(number, model=f"made-up-{number}", credential="")])
        an_adder(redis).roll_up()
    sums = UsageSums(redis).query(today(group_by=("model",)))
    assert 18 < len(sums) < 30
    assert sum(row["requests"] for row in sums) == 100
    others = sum(row["requests"] for row in sums if row["model"] == "(others)")
    RequestLog(redis).write([entry(number, model=f"more-{number}", credential="") for number in range(5)])
    an_adder(redis).roll_up()
    after = UsageSums(redis).query(today(group_by=("model",)))
    assert sum(row["requests"] for row in after if row["model"] == "(others)") == others + 5
    assert next(row for row in sums if row["model"] == "(others)")["requests"] > 70


def test_sums_do_not_stay_for_ever(redis: Redis):
    RequestLog(redis).write([entry(1)])
    an_adder(redis).roll_up()
    now = int(time.time())
    hour, day = keys.usage_hour(now - now % 3600), keys.usage_day(now - now % 86_400)
    assert redis.ttl(hour) == pytest.approx(31 * 86_400, abs=5)
    assert redis.ttl(day) == pytest.approx(usage.DAY_SUMS_TTL_DAYS * 86_400, abs=5)


# Questions to the log


def test_the_log_is_read_newest_first_by_what_is_asked(redis: Redis):
    log = RequestLog(redis)
    log.write([entry(i, key=f"k{i % 2}", code="x" if i == 3 else "") for i in range(2500)])
    everything = list(log.read_newest_first(LogFilter()))
    assert [one.entry.request for one in everything] == [f"req_{i}" for i in reversed(range(2500))]
    assert len(list(log.read_newest_first(LogFilter(key="k1")))) == 1250
    assert [one.entry.request for one in log.read_newest_first(LogFilter(outcome="failed"))] == ["req_3"]
    assert len(list(log.read_newest_first(LogFilter(outcome="ok")))) == 2499
    older = list(log.read_newest_first(LogFilter(), before=everything[100].id))
    assert older[0].entry.request == everything[101].entry.request
    assert list(log.read_newest_first(LogFilter(since=time.time() + 1))) == []
    assert list(log.read_newest_first(LogFilter(until=time.time() - 60))) == []


def test_a_made_up_name_is_kept_short_and_printable(redis: Redis):
    RequestLog(redis).write([entry(1, model="a\x1f\ud800" + "x" * 1000)])
    (found,) = RequestLog(redis).read_newest_first(LogFilter())
    assert found.entry.model == "a??" + "x" * 197


def test_an_entry_survives_its_way(redis: Redis):
    first = entry(1, model="mo delé", code="c", end="e", stream=1, band="batch")
    RequestLog(redis).write([first])
    (found,) = RequestLog(redis).read_newest_first(LogFilter())
    assert found.entry == first
    assert found.to_dict()["time"] == pytest.approx(time.time(), abs=5)
