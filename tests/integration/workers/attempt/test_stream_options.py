"""An upstream that refuses the `stream_options` which the farm adds is asked once more without them, at once."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from shared import keys
from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.raw_upstream import RawRequest, RawUpstream, Steps, chat_stream, chunked, event, whole
from tests.waiting import eventually

StartHarness = Callable[..., WorkerHarness]
STREAM = chat_stream("Hello")
NAMED = {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options')}]", "code": 400}
UNNAMED = {"error": {"message": "unknown field", "type": "invalid_request_error"}}


@pytest.fixture
def front(redis: Redis, redis_url: str) -> Iterator[FrontHarness]:
    front = FrontHarness(redis, redis_url)
    yield front
    front.close()


def refuse_options(refusal: Steps) -> Callable[[RawRequest], Steps]:
    return lambda request: refusal if "stream_options" in request.json else chunked(*STREAM)


def count_failures(harness: WorkerHarness) -> int:
    """Attempts that count as failed."""
    counters = harness.services.counters
    return sum(counters.value("attempts", "default", outcome) for outcome in ("refused", "upstream_error", "no_answer"))


@pytest.mark.parametrize(
    "refusal",
    [
        whole(NAMED, status=400),
        whole({"detail": [{"loc": ["body", "stream_options"], "msg": "extra fields not permitted"}]}, status=422),
        whole(b"unknown key include_usage", "text/plain", status=500),
        whole(b"<html>streamOptions</html>", "text/html", status=404),
        whole(UNNAMED, status=400),
        whole(b"", status=422),
        whole(NAMED),
        chunked(event({"code": 400, "message": "stream_options"}, "error")),
    ],
)
def test_refused_options_are_left_out_at_once_and_remembered(
    front: FrontHarness, start_harness: StartHarness, redis: Redis, refusal: Steps
):
    with RawUpstream(respond=refuse_options(refusal)) as upstream:
        harness = start_harness(pool={"upstream_url": upstream.url}, max_attempts=1)
        assert front.call(front.build_environ(stream=True)) == b"".join(STREAM)
        assert count_failures(harness) == 0
        assert front.call(front.build_environ(stream=True)) == b"".join(STREAM)
        assert ["stream_options" in request.json for request in upstream.requests] == [True, False, False]
        assert len({request.token for request in upstream.requests}) == 1
        eventually(lambda: redis.exists(keys.stream_options_refused("default")))


def test_other_processes_know_of_a_refusal(front: FrontHarness, start_harness: StartHarness, redis: Redis):
    redis.set(keys.stream_options_refused("default"), 1, ex=60)
    with RawUpstream(chunked(*STREAM)) as upstream:
        start_harness(pool={"upstream_url": upstream.url})
        front.call(front.build_environ(stream=True))
        assert "stream_options" not in upstream.requests[0].json


def test_options_of_the_caller_are_the_callers(front: FrontHarness, start_harness: StartHarness):
    with RawUpstream(respond=refuse_options(whole(NAMED, status=400))) as upstream:
        start_harness(pool={"upstream_url": upstream.url})
        body = front.call(front.build_environ(stream=True, stream_options={"include_usage": True}))
        assert "stream_options" in json.loads(body)["error"]["message"]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("error", [UNNAMED, NAMED])
def test_error_that_remains_without_the_options_is_the_callers(
    front: FrontHarness, start_harness: StartHarness, redis: Redis, error: dict[str, Any]
):
    with RawUpstream(whole(error, status=400)) as upstream:
        start_harness(pool={"upstream_url": upstream.url})
        assert b"error" in front.call(front.build_environ(stream=True))
        assert ["stream_options" in request.json for request in upstream.requests] == [True, False]
        assert not redis.exists(keys.stream_options_refused("default"))


def test_upstream_that_takes_the_options_is_asked_once_about_a_bad_request(
    front: FrontHarness, start_harness: StartHarness
):
    with RawUpstream(chunked(*STREAM), whole(UNNAMED, status=400)) as upstream:
        start_harness(pool={"upstream_url": upstream.url})
        for _ in range(2):
            front.call(front.build_environ(stream=True))
        assert len(upstream.requests) == 2
