"""Responses as upstreams really send them: judged by their bytes and by what was asked for (I6, I7)."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, product

import pytest

from shared.protocol.messages import Failure, Frame, FrameKind, Head
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.raw_upstream import (
    CLOSE,
    DONE,
    HOLD,
    RawRequest,
    RawUpstream,
    Steps,
    build_head,
    chat_chunk,
    chat_completion,
    chat_stream,
    chunked,
    event,
    until_closed,
    whole,
)
from tests.waiting import eventually

StartHarness = Callable[..., WorkerHarness]
Serve = Callable[..., tuple[WorkerHarness, RawUpstream]]
GOOD = whole(chat_completion("from another account"))
numbers = count()
PAGE = b"<!doctype html><html><head><title>Sign in</title></head></html>"


@pytest.fixture
def serve(start_harness: StartHarness) -> Iterator[Serve]:
    """Starts a worker for each credential, and an upstream with these responses."""
    with ExitStack() as upstreams:

        def start(
            *responses: Steps, respond: Callable[[RawRequest], Steps] | None = None, **options: object
        ) -> tuple[WorkerHarness, RawUpstream]:
            upstream = upstreams.enter_context(RawUpstream(*responses, respond=respond))
            defaults = {"first_byte_timeout": 60.0, "idle_timeout": 60.0}
            return start_harness(pool={"upstream_url": upstream.url}, **{**defaults, **options}), upstream

        yield start


def forget_failures(harness: WorkerHarness) -> None:
    """Nothing of what has been tried counts against a credential any more."""
    for worker in harness.workers:
        worker.runner.health.cooldown.end()
        worker.runner.health.record_success("test")


class Reply:
    """A reply, as the front gets it."""

    def __init__(self, frames: list[Frame]) -> None:
        self.head = Head.decode(frames[0].payload) if frames[0].kind is FrameKind.HEAD else Head(0)
        self.body = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
        is_failed = frames[-1].kind is FrameKind.FAILURE
        self.failure = Failure.decode(frames[-1].payload) if is_failed else None

    @property
    def content_type(self) -> str:
        return self.head.headers["content-type"]

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.json["choices"][0]["message"]["content"]


def ask(harness: WorkerHarness, *, stream: bool = False, **changes: object) -> Reply:
    body = streaming_body() if stream else CHAT_BODY
    mailbox = harness.enqueue(f"req_{next(numbers)}", body, stream=stream, **changes)
    return Reply(collect_frames(mailbox, within=60))


# Statuses of 400 and more


def test_callers_error_keeps_status_and_message_whatever_its_type(serve: Serve):
    harness, upstream = serve(GOOD)
    forms = [
        ("text/event-stream", b'{"error":{"message":"bad prompt","type":"invalid_request_error"}}'),
        ("text/event-stream", b'event:error\ndata:{"error":{"message":"bad prompt"}}\n\n'),
        ("text/event-stream", b'data: {"message": "bad prompt"}\r\n\r\ndata: [DONE]\r\n\r\n'),
        ("text/html", b"<html><title>bad prompt</title></html>"),
        ("text/plain", b"bad prompt"),
        (None, b'{"detail": "bad prompt"}'),
        ("application/json", b'\xef\xbb\xbf[{"error": {"message": "bad prompt", "code": 400}}]'),
        ("application/problem+json", b'{"type": "about:blank", "title": "Bad", "detail": "bad prompt"}'),
        ("application/json", b'{"object": "error", "message": "bad prompt", "code": 40001}'),
    ]
    for (content_type, body), stream in product(forms, (False, True)):
        upstream.script(whole(body, content_type, status=400))
        reply = ask(harness, stream=stream)
        assert (reply.head.status, reply.content_type, reply.failure) == (400, "application/json", None), body
        assert reply.json["error"]["message"] == "bad prompt", body
    assert len(upstream.requests) == 2 * len(forms)


def test_callers_error_in_openais_shape_passes_as_it_came(serve: Serve):
    body = b'{"error": {"message": "no",  "type": "t", "param": null, "code": "c", "extra": 1}}'
    harness, _ = serve(whole(body, status=422))
    assert ask(harness).body == body


def test_error_that_is_never_ended_is_passed_on_at_once(serve: Serve):
    harness, upstream = serve(GOOD)
    bodies = (b'{"error": {"message": "bad prompt"}}', b'data: {"error": "bad prompt"}\n\n')
    for body, end in product(bodies, ((HOLD,), (CLOSE,))):
        upstream.script(chunked(body, end=end, status=400))
        reply = ask(harness)
        assert (reply.head.status, reply.json["error"]["message"]) == (400, "bad prompt"), (body, end)


def test_error_whose_body_does_not_arrive_keeps_its_status(serve: Serve):
    harness, upstream = serve(GOOD, idle_timeout=0.5, max_attempts=1)
    for status in (400, 500):
        upstream.script([build_head(status, "application/json", "Content-Length: 900"), b'{"error": ', HOLD])
        assert ask(harness).head.status == status


def test_last_error_is_a_status_that_callers_can_read(serve: Serve):
    harness, upstream = serve(GOOD, max_attempts=1)
    for status, passed in ((599, 599), (600, 502), (999, 502)):
        upstream.script(whole(b"busy", "text/plain", status=status))
        reply = ask(harness)
        assert (reply.head.status, reply.json["error"]["message"]) == (passed, "busy")
        forget_failures(harness)


# Errors in disguise

DISGUISES = [
    [build_head(204, None)],
    [build_head(205, None)],
    [build_head(304, None)],
    whole({"object": "error", "message": "x", "code": 400}),
    whole({"code": 1302, "msg": "busy"}),
    whole({"id": None, "object": None, "choices": None, "error": {"code": 503, "message": "x"}}),
    whole({"detail": "x"}, "text/plain"),
    whole(PAGE, "text/plain"),
    whole(PAGE, None),
    whole(b"", None),
    whole(b"overloaded", "application/json"),
    whole(gzip.compress(PAGE), "text/html", "Content-Encoding: gzip"),
    chunked(b"event: error\n", b'data: {"code":"429","message":"slow"}\n\n', end=(HOLD,)),
    chunked(event({"error": "x"}), content_type=None, end=(CLOSE,)),
    chunked(b": ping\n\n", DONE),
]


def test_error_in_disguise_is_tried_on_another_account(serve: Serve):
    harness, upstream = serve(GOOD, credentials=2)
    for bad, stream in product(DISGUISES, (False, True)):
        upstream.requests.clear()
        upstream.script(bad, GOOD)
        assert b"from another account" in ask(harness, stream=stream).body, bad
        assert len({request.token for request in upstream.requests}) == 2
        forget_failures(harness)


def test_last_error_in_disguise_has_the_status_that_it_names(serve: Serve):
    harness, upstream = serve(GOOD, max_attempts=1)
    statuses = {"429": 429, 503: 503, 1302: 502, "rate_limit_exceeded": 429, 400: 400, "server_error": 502}
    for code, status in statuses.items():
        upstream.script(whole({"error": {"code": code, "message": "slow"}}))
        reply = ask(harness)
        assert (reply.head.status, reply.json["error"]["message"]) == (status, "slow"), code
        forget_failures(harness)


def test_page_is_named_in_the_error(serve: Serve):
    harness, _ = serve(whole(PAGE, "application/json"), max_attempts=1)
    failure = ask(harness).failure
    assert failure is not None
    assert (failure.code, "Sign in" in failure.message) == ("upstream_no_answer", True)


# Labels


def test_stream_is_a_stream_whatever_its_label(serve: Serve):
    usage = event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    *chunks, done = chat_stream("Hel", "lo")
    harness, upstream = serve(GOOD)
    labels = [None, "text/plain", "application/json", "application/octet-stream", "Text/Event-Stream"]
    for label in labels:
        upstream.script(chunked(*chunks, usage, done, content_type=label))
        reply = ask(harness, stream=True, hides_usage=True)
        assert (reply.content_type, reply.body) == ("text/event-stream", b"".join(chat_stream("Hel", "lo"))), label
    assert harness.services.counters.value("tokens", "prompt") == 7 * len(labels)


def test_stream_without_a_label_that_is_cut_says_so(serve: Serve):
    harness, _ = serve(chunked(chat_chunk("Hel"), content_type=None, end=(CLOSE,)))
    reply = ask(harness, stream=True)
    assert (reply.body, reply.failure and reply.failure.code) == (chat_chunk("Hel"), "upstream_eof")


def test_json_is_json_whatever_its_label(serve: Serve):
    completion = chat_completion("Hello", usage={"prompt_tokens": 7, "completion_tokens": 3})
    data = json.dumps(completion).encode()
    harness, upstream = serve(GOOD)
    labels = [None, "text/plain", "text/html", "text/event-stream", "Application/JSON", "text/json"]
    for label in labels:
        upstream.script(whole(b"\xef\xbb\xbf" + data, label))
        reply = ask(harness)
        assert (reply.head.status, reply.content_type, reply.json) == (200, "application/json", completion), label
    assert harness.services.counters.value("tokens", "prompt") == 7 * len(labels)
    upstream.script(whole(gzip.compress(data), "application/json", "Content-Encoding: GZIP"))
    assert ask(harness).text == "Hello"


# The other form


def test_stream_that_nobody_asked_for_becomes_one_object(serve: Serve):
    harness, upstream = serve(GOOD)
    for label in ("text/event-stream", "application/json", None):
        upstream.script(chunked(*chat_stream("Hel", "lo"), content_type=label))
        reply = ask(harness)
        assert (reply.content_type, reply.json["object"], reply.text) == (
            "application/json",
            "chat.completion",
            "Hello",
        )


def test_object_where_a_stream_was_asked_for_becomes_events(serve: Serve):
    harness, upstream = serve(GOOD)
    for label in ("application/json", "text/event-stream", None):
        upstream.script(whole(chat_completion("Hello"), label))
        reply = ask(harness, stream=True, hides_usage=True)
        assert reply.content_type == "text/event-stream"
        *chunks, done = [part.removeprefix(b"data: ") for part in reply.body.split(b"\n\n")[:-1]]
        choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
        assert [choice["delta"].get("content") for choice in choices] == ["Hello", None]
        assert ([choice["finish_reason"] for choice in choices], done) == ([None, "stop"], b"[DONE]")


def test_whole_message_in_an_event_becomes_chunks(serve: Serve):
    harness, upstream = serve(GOOD)
    for events in ([event(chat_completion("Hello")), DONE], [b": hi\n\n", event(chat_completion("Hello"))]):
        upstream.script(chunked(*events))
        reply = ask(harness, stream=True)
        assert reply.content_type == "text/event-stream"
        first = json.loads(reply.body.split(b"\n\n")[0].removeprefix(b"data: "))
        assert first["choices"][0]["delta"]["content"] == "Hello"
        assert reply.body.endswith(DONE)


# Access tokens


def test_token_refused_with_status_200_is_refreshed_once(serve: Serve):
    tokens: list[str] = []

    def respond(request: RawRequest) -> Steps:
        tokens.append(request.token)
        return GOOD if request.token != tokens[0] else whole({"error": {"code": 401, "message": "expired"}})

    harness, upstream = serve(respond=respond, max_attempts=1)
    harness.upstream.accounts(expire=True)
    assert ask(harness).text == "from another account"
    assert len(set(tokens)) == 2
    refused = whole({"error": {"code": 401, "message": "expired"}})
    upstream.script(refused)
    reply = ask(harness)
    assert reply.failure is not None
    assert reply.failure.code == "upstream_auth_failed"


# Whole responses that break off

CUTS = [
    [build_head(200, "application/json", "Content-Length: 900"), b'{"choices": [{"message": {"con', CLOSE],
    chunked(b'{"choices": [{"message": ', content_type="application/json", end=(CLOSE,)),
    until_closed(b'{"choices": [{"message": '),
    [build_head(200, "application/json", "Content-Length: 900000"), b'{"choices": "' + b"x" * 300_000, CLOSE],
    [build_head(200, "application/json", "Content-Length: 900"), b'{"choices": [', HOLD],
    chunked(chat_chunk("Hel"), end=(CLOSE,)),
    chunked(chat_chunk("Hel"), event({"error": {"message": "x"}}), end=(HOLD,)),
]


def test_whole_response_that_breaks_off_or_falls_silent_is_tried_on_another_account(serve: Serve):
    harness, upstream = serve(GOOD, credentials=2, idle_timeout=1.0)
    for cut in CUTS:
        upstream.requests.clear()
        upstream.script(cut, GOOD)
        assert ask(harness).text == "from another account", cut
        assert len({request.token for request in upstream.requests}) == 2
        forget_failures(harness)
    eventually(lambda: upstream.released == 2)


# Accounts out of credit


def test_account_out_of_credit_is_out_of_service_and_the_others_serve(serve: Serve):
    unpaid: list[str] = []

    def respond(request: RawRequest) -> Steps:
        unpaid[:] = unpaid or [request.token]
        if request.token == unpaid[0]:
            error = {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}
            return whole(error, status=402)
        return GOOD

    harness, upstream = serve(respond=respond, credentials=3, max_attempts=8)
    replies = [ask(harness) for _ in range(20)]
    assert {reply.text for reply in replies} == {"from another account"}
    eventually(lambda: sorted(harness.credentials.get_states("default").values()) == ["active", "active", "cooling"])
    asked = [request.token for request in upstream.requests].count(unpaid[0])
    assert asked <= 3
    states = harness.credentials.get_states("default")
    (cooling,) = [credential_id for credential_id, state in states.items() if state == "cooling"]
    assert harness.credentials.get(cooling, ["default"]).reason == "out_of_credit"


def test_error_of_unpaid_accounts_passes_when_all_say_so(serve: Serve):
    harness, upstream = serve(GOOD, credentials=3, max_attempts=8)
    for status, code in ((402, "x"), (429, "insufficient_quota"), (400, "Arrearage")):
        upstream.requests.clear()
        upstream.script(whole({"error": {"message": "pay", "code": code}}, status=status))
        reply = ask(harness)
        assert (reply.head.status, reply.json["error"]["message"]) == (status, "pay")
        assert len({request.token for request in upstream.requests}) == len(upstream.requests) == 3
        forget_failures(harness)
