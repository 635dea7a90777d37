"""Finished requests are logged and charged to their key, without prompts or replies."""

import json

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import encode_demand
from shared.observability.request_log import LogEntry, LogFilter, RequestLog
from shared.protocol.messages import FrameKind
from tests.builders import build_request
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually

KEY = ApiKey(id="k1", hint="", created_at=0, quota_tokens=10_000)


def logged_entries(redis: Redis) -> list[LogEntry]:
    eventually(lambda: redis.xlen(keys.REQUEST_LOG))
    return [item.entry for item in RequestLog(redis).read_newest_first(LogFilter())]


def relay(harness: WorkerHarness, body: bytes = CHAT_BODY, **changes) -> bytes:
    """Sends a request of KEY; returns the body of its reply once it is logged."""
    changes = {"key": "k1", "model": "m", "path": "/chat/completions", **changes}
    mailbox = harness.hub.open("req_1")
    request = build_request("req_1", channel=harness.hub.channel("req_1"), **changes)
    harness.queue.enqueue(request, body, encode_demand(KEY, 500, request.enqueued_at))
    frames = collect_frames(mailbox)
    eventually(lambda: harness.redis.xlen(keys.REQUEST_LOG))
    return b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)


def user_message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_finished_request_is_logged_and_charged_as_reported(harness: WorkerHarness):
    reported = json.loads(relay(harness))["usage"]
    (entry,) = logged_entries(harness.redis)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated) == (1, 1, 0)
    assert reported["total_tokens"] == 2
    assert (entry.request, entry.key, entry.pool, entry.model) == ("req_1", "k1", "default", "m")
    assert (entry.status, entry.attempts, entry.end, entry.code) == (200, 1, "done", "")
    assert entry.credential == harness.credential_id
    assert 0 <= entry.queue_ms <= entry.first_ms <= entry.total_ms < 10_000
    assert harness.redis.hget(keys.quota("k1"), "tokens") == b"2"


def test_log_holds_nothing_of_prompt_or_reply(harness: WorkerHarness):
    relay(harness)
    log = repr(harness.redis.xrange(keys.REQUEST_LOG))
    assert "Hello" not in log
    assert "Uryyb" not in log


def test_stream_usage_is_counted_and_hidden_unless_requested(harness: WorkerHarness):
    harness.upstream.pace(chunks=5)
    body = streaming_body(stream_options={"include_usage": True})
    hidden = relay(harness, body, stream=True, hides_usage=True)
    assert b"usage" not in hidden
    assert hidden.endswith(b"data: [DONE]\n\n")
    (entry,) = logged_entries(harness.redis)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated, entry.stream) == (1, 1, 0, 1)


def test_stream_usage_passes_when_the_front_decides_who_sees_it(harness: WorkerHarness):
    body = streaming_body(stream_options={"include_usage": True})
    assert b'"usage"' in relay(harness, body, stream=True, hides_usage=True, reveals_usage=True)


def test_stream_usage_is_shown_when_requested(harness: WorkerHarness):
    assert b'"usage"' in relay(harness, streaming_body(stream_options={"include_usage": True}), stream=True)


def test_unreported_usage_is_counted_and_marked_as_estimated(harness: WorkerHarness):
    relay(harness, streaming_body(messages=user_message("Hello brave new world")), stream=True)
    (entry,) = logged_entries(harness.redis)
    assert (entry.prompt_tokens, entry.estimated) == (4, 1)
    assert entry.completion_tokens > 4
    assert int(harness.redis.hget(keys.quota("k1"), "tokens")) == 4 + entry.completion_tokens


def test_truncated_stream_costs_what_arrived_of_it(harness: WorkerHarness):
    harness.upstream.faults(cut=1)
    harness.upstream.pace(chunks=8)
    relay(harness, streaming_body(messages=user_message("word " * 100)), stream=True)
    (entry,) = logged_entries(harness.redis)
    assert (entry.status, entry.code, entry.end, entry.estimated) == (200, "upstream_eof", "upstream_eof", 1)
    assert 20 < entry.completion_tokens < 300
    assert entry.prompt_tokens == pytest.approx(101, abs=2)


def test_failed_request_costs_nothing_and_is_logged_once(harness: WorkerHarness):
    harness.upstream.faults(server_error=1)
    relay(harness)
    (entry,) = logged_entries(harness.redis)
    assert (entry.status, entry.code, entry.attempts, entry.end) == (500, "upstream_error", 2, "upstream_error")
    counts = harness.redis.hmget(keys.quota("k1"), "tokens", "reserved", "requests")
    assert [int(number or 0) for number in counts] == [0, 0, 0]


def test_request_that_the_upstream_refuses_costs_nothing(harness: WorkerHarness):
    relay(harness, b'{"model": "m", "messages": 3}')
    (entry,) = logged_entries(harness.redis)
    assert (entry.status, entry.end, entry.prompt_tokens) == (400, "done", 0)


def test_caller_who_leaves_mid_stream_is_charged_for_what_arrived(harness: WorkerHarness):
    harness.upstream.pace(chunks=100, chunk_delay=0.05)
    mailbox = harness.hub.open("req_1")
    request = build_request(
        "req_1", channel=harness.hub.channel("req_1"), stream=True, key="k1", path="/chat/completions"
    )
    harness.queue.enqueue(request, streaming_body(messages=user_message("word " * 300)))
    eventually(lambda: mailbox.get(0.1))
    harness.worker.runner.cancel("client_gone")
    (entry,) = logged_entries(harness.redis)
    assert (entry.status, entry.end, entry.code, entry.estimated) == (200, "client_gone", "client_gone", 1)
    assert 0 < entry.completion_tokens < 300


@pytest.mark.parametrize("usage", ["true", "1e17", "100000000000000000000"])
def test_impossible_usage_of_an_upstream_does_not_end_the_worker(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, usage: str
):
    body = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": ' + usage.encode() + b"}}"
    monkeypatch.setattr("workers.attempt.attempt.iter_body", lambda _: iter([body]))
    key = ApiKey(id="k1", hint="", created_at=0, quota_tokens=1000)
    for number in range(2):
        request_id = f"req_{number}"
        mailbox = harness.hub.open(request_id)
        channel = harness.hub.channel(request_id)
        request = build_request(request_id, channel=channel, key="k1", path="/chat/completions")
        harness.queue.enqueue(request, b"{}", encode_demand(key, 5, request.enqueued_at))
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: harness.redis.keys("rq:job:*") == [])
    assert not harness.has_ended
    assert len(logged_entries(harness.redis)) == 2
