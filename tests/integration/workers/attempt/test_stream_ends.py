"""A stream is over when it says so, whatever the upstream does with the connection; what is cut before is an error."""

import json
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.raw_upstream import CLOSE, HOLD, RawUpstream, Steps, chat_chunk, chat_stream, chunked, event
from tests.raw_upstream import until_closed as close_delimited
from tests.waiting import eventually

StartHarness = Callable[..., WorkerHarness]
#: The upstream would go on for so long; the farm's own timeouts too.
LONG = 60.0
STREAM = chat_stream("Hel", "lo")
FINISHED = STREAM[:-1]
PINGS: Steps = [step for _ in range(int(LONG / 0.5)) for step in (0.5, b"8\r\n: ping\n\n\r\n")]


@pytest.fixture
def front(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontHarness]:
    monkeypatch.setattr("workers.response.event_stream.FINISHED_SECONDS", 0.3)
    front = FrontHarness(redis, redis_url, keepalive=LONG)
    yield front
    front.close()


def relay(front: FrontHarness, start_harness: StartHarness, *responses: Steps, **fields: object) -> bytes:
    """What a caller gets of the first response; the next request is served by the same account afterwards."""
    with RawUpstream(*responses, chunked(*STREAM)) as upstream:
        pool = {"upstream_url": upstream.url}
        harness = start_harness(pool=pool, first_byte_timeout=LONG, idle_timeout=LONG, max_attempts=1)
        body = front.call(front.build_environ(stream=True, **fields))
        if len(responses) == 1:
            assert front.call(front.build_environ(stream=True)) == b"".join(STREAM)
            assert harness.credential_state()[0] == "active"
            assert len({request.token for request in upstream.requests}) == 1
    return body


@pytest.mark.parametrize("end", [[HOLD], PINGS, [CLOSE]], ids=["open", "comments", "closed"])
@pytest.mark.parametrize("sent", [STREAM, FINISHED], ids=["done", "finished"])
def test_stream_that_has_said_all_ends_well(
    front: FrontHarness, start_harness: StartHarness, sent: list[bytes], end: Steps
):
    body = relay(front, start_harness, chunked(*sent, end=end))
    assert body.replace(b": ping\n\n", b"") == b"".join(sent)


@pytest.mark.parametrize(
    ("last", "passed"),
    [
        (b"data: [DONE]\n", b"data: [DONE]\n"),
        (b"data: [DONE]", b"data: [DONE]"),
        (chat_chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2}), b""),
    ],
)
def test_what_is_missing_behind_the_end_is_no_error(
    front: FrontHarness, start_harness: StartHarness, last: bytes, passed: bytes
):
    assert relay(front, start_harness, chunked(*FINISHED, last, end=[HOLD])) == b"".join(FINISHED) + passed


def test_stream_without_a_length_ends_well_although_it_is_left_open(front: FrontHarness, start_harness: StartHarness):
    assert relay(
        front, start_harness, [*close_delimited(*STREAM, content_type="text/event-stream")[:-1], HOLD]
    ) == b"".join(STREAM)


@pytest.mark.parametrize("end", [[HOLD], [CLOSE]], ids=["open", "closed"])
@pytest.mark.parametrize("sent", [STREAM, FINISHED], ids=["done", "finished"])
def test_stream_for_who_asked_for_none_is_whole_when_it_has_said_all(
    front: FrontHarness, start_harness: StartHarness, sent: list[bytes], end: Steps
):
    with RawUpstream(chunked(*sent, end=end)) as upstream:
        start_harness(pool={"upstream_url": upstream.url}, idle_timeout=LONG, max_attempts=1)
        completion = json.loads(front.call(front.build_environ()))
    assert completion["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    "sent",
    [
        [chat_chunk("Hel")],
        [chat_chunk("Hel"), b'data: {"choices": [{"finish_reason": "st'],
        [chat_chunk("a", index=1), *FINISHED],
    ],
)
@pytest.mark.parametrize("delimited", [True, False])
def test_stream_that_is_cut_before_its_end_is_an_error(
    front: FrontHarness, start_harness: StartHarness, sent: list[bytes], delimited: bool
):
    response = chunked(*sent, end=[CLOSE]) if delimited else close_delimited(*sent, content_type="text/event-stream")
    body = relay(front, start_harness, response, n=2)
    *_, last = body.split(b"\n\n")[:-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_eof"


def test_each_choice_must_finish_before_a_silence_ends_the_stream(front: FrontHarness, start_harness: StartHarness):
    second = [chat_chunk("a", index=1), chat_chunk(index=1, finish_reason="stop")]
    response = chunked(*FINISHED, *second, end=[HOLD])
    assert relay(front, start_harness, response, n=2) == b"".join([*FINISHED, *second])


def test_error_of_the_upstream_amid_a_stream_ends_it_once(front: FrontHarness, start_harness: StartHarness):
    error = event({"error": {"message": "overloaded", "code": 503}})
    assert relay(front, start_harness, chunked(STREAM[0], error, end=[HOLD])) == STREAM[0] + error


def test_connection_is_kept_when_http_ends_the_stream_and_dropped_when_it_does_not(
    front: FrontHarness, start_harness: StartHarness
):
    with RawUpstream(chunked(*STREAM), chunked(*STREAM, end=[HOLD]), chunked(*STREAM)) as upstream:
        harness = start_harness(pool={"upstream_url": upstream.url}, idle_timeout=LONG)
        for _ in range(3):
            front.call(front.build_environ(stream=True))
        eventually(lambda: upstream.released == 1)
        assert harness.credential_state()[0] == "active"
        assert upstream.connections == 2


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_lines_that_no_empty_one_follows_pass_as_they_come(
    front: FrontHarness, start_harness: StartHarness, line_end: bytes
):
    lines = [block.removesuffix(b"\n\n") + line_end for block in STREAM]
    with RawUpstream(chunked(*lines[:2], end=[CLOSE])) as upstream:
        start_harness(pool={"upstream_url": upstream.url}, first_byte_timeout=LONG, idle_timeout=LONG)
        response = front.app.wsgi_app(front.build_environ(stream=True), lambda *_: lambda *_: None)
        assert next(iter(response)) == b"".join(lines[:2])
        response.close()  # type: ignore[attr-defined]
