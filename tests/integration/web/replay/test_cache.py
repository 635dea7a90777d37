"""Requests that ask the same get one answer: while it is written, and from the cache for as long as is set."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.observability.request_log import LogFilter, RequestLog
from shared.settings.schema import PoolSettings
from tests.integration.web.replay.conftest import CHUNKS, DONE, USAGE_CHUNK, WHOLE, SharingFront, settle
from tests.integration.web.server.front_server import FrontServer, build_request, read_all, serve
from tests.waiting import eventually
from web.replay.answers.answer_store import AnswerStore

STREAM, FULL_STREAM = b"".join((*CHUNKS, DONE)), b"".join((*CHUNKS, USAGE_CHUNK, DONE))
FREE_WHOLE, FREE_STREAM = (re.sub(rb'(_tokens": )\d+', rb"\g<1>0", data) for data in (WHOLE, FULL_STREAM))


@pytest.fixture(scope="module")
def caching(start_front: Callable[..., SharingFront]) -> SharingFront:
    return start_front(pools=(PoolSettings(cache_ttl=100, model_map={"fast": "m"}),))


@pytest.fixture
def front(caching: SharingFront, redis: Redis) -> Iterator[SharingFront]:
    yield caching
    assert caching.waiting == 0
    settle(caching)


def outcome(response: Any) -> str:
    assert response.status_code == 200, response.data
    return str(response.headers["x-farm-cache"])


def fill(front: SharingFront, **fields: Any) -> None:
    """Has the request's answer kept."""
    asked = front.ask(**fields)
    if fields.get("stream"):
        front.serve_stream(*CHUNKS, USAGE_CHUNK, DONE)
    else:
        front.serve()
    assert outcome(front.answer(asked)) == "miss"
    settle(front)


def test_same_question_is_answered_from_the_cache(front: SharingFront, redis: Redis):
    fill(front)
    hit = front.answer(front.ask())
    assert (outcome(hit), hit.data) == ("hit", FREE_WHOLE)
    (answer,) = redis.keys("farm:answer:*")
    assert 90 < redis.ttl(answer) <= 100


@pytest.mark.parametrize("is_filled_by_stream", [True, False])
def test_answer_comes_streamed_or_whole_as_asked(front: SharingFront, is_filled_by_stream: bool):
    fill(front, stream=is_filled_by_stream)
    whole = front.answer(front.ask())
    assert (outcome(whole), whole.headers["content-type"]) == ("hit", "application/json")
    message = json.loads(whole.data)
    assert message["choices"][0]["message"]["content"] == ("Hi there" if is_filled_by_stream else "Hi")
    assert message["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}
    plain = front.answer(front.ask(stream=True))
    assert (outcome(plain), plain.headers["content-type"]) == ("hit", "text/event-stream")
    assert plain.data.endswith(DONE)
    assert b"usage" not in plain.data
    full = front.answer(front.ask(stream=True, stream_options={"include_usage": True}))
    assert full.data.count(b'"usage"') == 1
    if is_filled_by_stream:
        assert (plain.data, full.data) == (STREAM, FREE_STREAM)


def test_caller_who_fills_the_cache_sees_no_usage_that_it_did_not_ask_for(front: SharingFront):
    asked = front.ask(stream=True)
    front.serve_stream(*CHUNKS, USAGE_CHUNK, DONE)
    assert front.answer(asked).data == STREAM


def test_fifty_copies_at_once_are_run_once_and_all_right(front: SharingFront):
    asked = [front.ask(stream=number % 2 == 0) for number in range(50)]
    front.serve_stream(*CHUNKS, USAGE_CHUNK, DONE)
    answers = [front.answer(each) for each in asked]
    assert sorted(map(outcome, answers)) == ["joined"] * 49 + ["miss"]
    assert {answer.data for answer in answers[::2]} == {STREAM}
    assert {json.loads(answer.data)["choices"][0]["message"]["content"] for answer in answers[1::2]} == {"Hi there"}


def test_who_asks_and_how_it_is_delivered_make_no_other_question(front: SharingFront):
    fill(front, user="me", metadata={"a": "b"}, safety_identifier="s", prompt_cache_key="p")
    assert outcome(front.answer(front.ask(model="fast", user="you"))) == "hit"


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": ""}]},
        {"model": "n"},
        {"model": "\ud800", "idempotency_key": "k1"},
        {"temperature": 0},
        {"store": True},
    ],
)
def test_other_question_is_run(front: SharingFront, other: dict[str, Any]):
    fill(front)
    fill(front, **other)


def test_other_endpoint_and_other_beta_are_run(front: SharingFront):
    fill(front)
    fill(front, headers={"openai-beta": "x"})
    asked = front.ask(path="/v1/completions")
    front.serve()
    assert outcome(front.answer(asked)) == "miss"


@pytest.mark.parametrize("stream", [True, False])
def test_stream_is_another_question_where_it_can_not_be_made_whole(front: SharingFront, stream: bool):
    """Streams of images, as of any endpoint whose events are not chunks of one object."""
    image = {"path": "/v1/images/generations", "prompt": "a cat"}
    fill(front, **image, stream=stream)
    fill(front, **image, stream=not stream)
    assert outcome(front.answer(front.ask(**image, stream=stream, user="you"))) == "hit"


def test_no_cache_is_run_and_replaces_what_was_kept(front: SharingFront):
    fill(front)
    asked = front.ask(headers={"cache-control": "max-age=0, No-Cache"})
    front.serve("application/json", WHOLE.replace(b"Hi", b"Ho"))
    assert outcome(front.answer(asked)) == "miss"
    settle(front)
    assert b"Ho" in front.answer(front.ask()).data


def test_no_store_is_read_but_not_kept(front: SharingFront, redis: Redis):
    asked = front.ask(headers={"cache-control": "no-store"})
    front.serve()
    assert outcome(front.answer(asked)) == "miss"
    settle(front)
    assert redis.keys("farm:answer:*") == []
    fill(front)
    assert outcome(front.answer(front.ask(headers={"cache-control": "no-store"}))) == "hit"


def control(front: SharingFront, directives: str) -> Any:
    return front.ask(headers={"cache-control": directives})


def test_age_of_a_kept_answer_may_be_bounded(front: SharingFront, redis: Redis):
    fill(front)
    (answer,) = redis.keys("farm:answer:*")

    def age() -> None:
        """It was kept 40 seconds ago, perhaps for longer than answers are now."""
        redis.lset(answer, 0, int(1000 * (time.time() - 40)))
        redis.pexpire(answer, 60_000)

    age()
    assert outcome(front.answer(control(front, "max-age=45, min-fresh=55"))) == "hit"
    for directives in ("max-age=39", "min-fresh=61", "max-age=0"):
        age()
        asked = control(front, directives)
        front.serve()
        assert outcome(front.answer(asked)) == "miss"
        settle(front)
        assert redis.ttl(answer) > 90, "it is kept in place of the old one"
        assert int(redis.lindex(answer, 0)) > 1000 * (time.time() - 10)


def test_nothing_is_run_for_a_caller_that_wants_only_what_is_kept(front: SharingFront, redis: Redis):
    refused = front.answer(control(front, "only-if-cached"))
    assert (refused.status_code, refused.json["error"]["code"]) == (504, "not_cached")
    assert refused.headers["x-should-retry"] == "false"
    eventually(lambda: redis.keys("farm:run:*") == [])
    fill(front)
    assert outcome(front.answer(control(front, "only-if-cached"))) == "hit"


def test_keys_share_only_where_the_pool_says_so(
    front: SharingFront, start_front: Callable[..., SharingFront], redis: Redis
):
    secret, _ = ApiKeys(redis).create("other")
    fill(front)
    fill(front, secret=secret)
    sharing = start_front(pools=(PoolSettings(cache_ttl=100, cache_scope="pool"),))
    fill(sharing)
    assert outcome(sharing.answer(sharing.ask(secret=secret))) == "hit"


def test_key_overrides_its_pool(front: SharingFront, module_front: SharingFront, redis: Redis):
    never, _ = ApiKeys(redis).create("never", cache_ttl=0)
    asked = front.ask(secret=never)
    front.serve()
    assert "x-farm-cache" not in front.answer(asked).headers
    always, _ = ApiKeys(redis).create("always", cache_ttl=50)
    fill(module_front, secret=always)
    assert outcome(module_front.answer(module_front.ask(secret=always))) == "hit"
    asked = module_front.ask()
    module_front.serve()
    assert "x-farm-cache" not in module_front.answer(asked).headers


def test_requests_are_joined_without_a_cache(start_front: Callable[..., SharingFront], redis: Redis):
    front = start_front(pools=(PoolSettings(join_requests=True),))
    asked = [front.ask() for _ in range(2)]
    front.serve()
    assert sorted(outcome(front.answer(each)) for each in asked) == ["joined", "miss"]
    settle(front)
    assert redis.keys("farm:answer:*") == []
    fill(front)


def test_name_of_the_model_is_the_callers_where_it_is_mapped_back(
    start_front: Callable[..., SharingFront], redis: Redis
):
    front = start_front(pools=(PoolSettings(cache_ttl=100, model_map={"fast": "m"}, map_back=True),))
    fill(front)
    fill(front, model="fast")


def test_other_upstream_is_asked_anew(front: SharingFront, start_front: Callable[..., SharingFront], redis: Redis):
    fill(front)
    reloaded = start_front(pools=(PoolSettings(cache_ttl=100, upstream_url="https://upstream.example/v1"),))
    fill(reloaded, secret=front.secret)


def test_usage_of_a_stream_is_part_of_the_answer_where_the_farm_does_not_ask_for_it(
    start_front: Callable[..., SharingFront], redis: Redis
):
    front = start_front(pools=(PoolSettings(cache_ttl=100, count_usage=False),))
    fill(front, stream=True)
    fill(front, stream=True, stream_options={"include_usage": True})
    assert json.loads(front.answer(front.ask()).data)["usage"]["prompt_tokens"] == 0


def test_forms_are_not_shared(front: SharingFront):
    asked = front.ask_form("one", "sound")
    front.serve("application/json", b'{"text": "sound"}')
    assert "x-farm-cache" not in front.answer(asked).headers


def test_idempotency_key_and_cache_go_together(front: SharingFront, redis: Redis):
    fill(front, idempotency_key="k1")
    assert len(redis.keys("farm:answer:*")) == 2
    assert outcome(front.answer(front.ask())) == "hit"
    eventually(lambda: len(redis.keys("farm:answer:*")) == 2)
    # A retry gets the answer of the first, byte for byte, with the usage that it had.
    answers = [front.answer(front.ask(key)) for key in ("k1", "k2")]
    assert [(outcome(answer), answer.data) for answer in answers] == [("hit", WHOLE), ("hit", FREE_WHOLE)]
    eventually(lambda: len(redis.keys("farm:answer:*")) == 3)
    assert [front.answer(front.ask(key)).data for key in ("k1", "k2")] == [WHOLE, FREE_WHOLE]
    for key in ("k1", "k2"):
        assert front.answer(front.ask(key, temperature=1)).status_code == 422


@pytest.fixture
def joining(start_front: Callable[..., SharingFront], redis: Redis) -> SharingFront:
    """A front whose requests are joined, and whose answers are not kept but for idempotency keys."""
    return start_front(pools=(PoolSettings(join_requests=True),))


def check_refused(front: SharingFront, *idempotency_keys: str) -> None:
    """Those keys stand for the request."""
    answers = [front.answer(front.ask(key, temperature=1)) for key in idempotency_keys]
    assert [answer.status_code for answer in answers] == [422] * len(idempotency_keys)


def test_run_that_is_joined_with_an_idempotency_key_is_drained_and_kept_for_it(joining: SharingFront, redis: Redis):
    first = joining.ask(stream=True)
    request_id = joining.serve_stream(CHUNKS[0], end=None)
    eventually(lambda: joining.services.runs.followers)
    second = joining.ask("k2", stream=True)
    eventually(lambda: len(joining.services.runs.followers) == 2)
    check_refused(joining, "k2")
    gevent.killall([first, second])
    for follower in list(joining.services.runs.followers):
        follower.close()
    third = joining.ask("k2", stream=True)
    eventually(lambda: joining.services.runs.followers)
    joining.continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert (outcome(joining.answer(third)), joining.answer(third).data) == ("joined", STREAM)
    settle(joining)
    retry = joining.answer(joining.ask("k2", stream=True))
    assert (outcome(retry), retry.data) == ("hit", STREAM)
    check_refused(joining, "k2")
    eventually(lambda: redis.keys("farm:run:*") == [])


def test_run_of_another_front_that_is_joined_with_an_idempotency_key_is_kept_for_it(
    joining: SharingFront, start_front: Callable[..., SharingFront], redis: Redis
):
    other = start_front(pools=(PoolSettings(join_requests=True),))
    other.secret = joining.secret
    first = joining.ask(stream=True)
    request_id = joining.serve_stream(CHUNKS[0], end=None)
    second = other.ask("k2", stream=True)
    eventually(lambda: [run for run in other.services.runs.list_running() if run.frames])
    check_refused(joining, "k2")
    joining.continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert [joining.answer(each).data for each in (first, second)] == [STREAM, STREAM]
    settle(other)
    retry = joining.answer(joining.ask("k2", stream=True))
    assert (outcome(retry), retry.data) == ("hit", STREAM)
    assert len(redis.keys("farm:answer:*")) == 1
    check_refused(joining, "k2")


def test_responses_are_shared_when_they_are_complete(front: SharingFront, redis: Redis):
    response = {"id": "r", "object": "response", "status": "incomplete", "output": [{"type": "message", "content": []}]}
    asked = front.ask(path="/v1/responses", input="x")
    front.serve("application/json", json.dumps(response).encode())
    front.answer(asked)
    settle(front)
    assert redis.keys("farm:answer:*") == []
    asked = front.ask(path="/v1/responses", input="x")
    front.serve("application/json", json.dumps({**response, "status": "completed"}).encode())
    front.answer(asked)
    settle(front)
    streamed = front.answer(front.ask(path="/v1/responses", input="x", stream=True))
    assert (outcome(streamed), b"response.completed" in streamed.data) == ("hit", True)


def test_usage_is_zero_while_the_ended_answer_is_still_being_kept(
    front: SharingFront, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    released, keep = Event(), AnswerStore.keep

    def keep_late(*args: Any) -> bool:
        released.wait()
        return keep(*args)

    monkeypatch.setattr(AnswerStore, "keep", keep_late)
    first = front.ask("k1")
    front.serve()
    assert front.answer(first).data == WHOLE
    answers = {key: front.answer(front.ask(key)) for key in ("", "k1", "k2")}
    assert {outcome(answer) for answer in answers.values()} == {"hit"}
    assert [answer.data for answer in answers.values()] == [FREE_WHOLE, WHOLE, FREE_WHOLE]
    check_refused(front, "k1", "k2")
    released.set()
    settle(front)
    eventually(lambda: len(redis.keys("farm:answer:*")) == 3)
    eventually(lambda: redis.keys("farm:run:*") == [])
    assert [front.answer(front.ask(key)).data for key in ("k1", "k2")] == [WHOLE, FREE_WHOLE]
    check_refused(front, "k1", "k2")


def test_usage_of_a_kept_response_and_of_kept_embeddings_is_zero(front: SharingFront):
    usage = {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 1, "total_tokens": 4}
    response = {"id": "r", "object": "response", "status": "completed", "output": [], "usage": usage}
    event = b"event: response.completed\ndata: %s\n\n"
    stream = event % json.dumps({"type": "response.completed", "response": response}).encode()
    asked = front.ask(path="/v1/responses", input="x", stream=True)
    front.serve_stream(stream)
    assert front.answer(asked).data == stream
    settle(front)
    free = json.loads(re.sub(r"\b\d+\b", "0", json.dumps(usage)))
    streamed, whole = (front.answer(front.ask(path="/v1/responses", input="x", stream=kind)) for kind in (True, False))
    assert (outcome(streamed), outcome(whole)) == ("hit", "hit")
    assert (
        streamed.data
        == event % json.dumps({"type": "response.completed", "response": {**response, "usage": free}}).encode()
    )
    assert whole.json == {**response, "usage": free}
    vectors = {"object": "list", "data": [{"embedding": [0.5, 7]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    asked = front.ask(path="/v1/embeddings", input="x")
    front.serve("application/json", json.dumps(vectors).encode())
    assert front.answer(asked).json == vectors
    settle(front)
    hit = front.answer(front.ask(path="/v1/embeddings", input="x"))
    assert (outcome(hit), hit.json) == ("hit", {**vectors, "usage": {"prompt_tokens": 0, "total_tokens": 0}})


def test_answer_without_the_form_that_was_asked_for_is_logged_as_its_caller_got_it(front: SharingFront, redis: Redis):
    first = front.ask(stream=True)
    request_id = front.serve("application/json", b'{"a": 1}', end=None)
    eventually(lambda: front.services.runs.followers)
    joined = front.ask(stream=True)
    eventually(lambda: len(front.services.runs.followers) == 2)
    front.continue_reply(request_id, 2)
    # The caller whose request was run gets what came.
    assert (front.answer(first).status_code, front.answer(first).json) == (200, {"a": 1})
    assert (front.answer(joined).status_code, front.answer(joined).json["error"]["code"]) == (502, "upstream_error")
    front.services.flush()
    (logged,) = [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter(code="upstream_error"))]
    assert (logged.status, logged.end) == (502, "joined")


def test_error_reaches_all_who_joined_as_it_is(front: SharingFront):
    asked = [front.ask(stream=stream) for stream in (True, False)]
    front.serve("application/json", b'{"error": {"message": "no"}}', status=400)
    answers = [front.answer(each) for each in asked]
    assert [(answer.status_code, answer.data) for answer in answers] == [(400, b'{"error": {"message": "no"}}')] * 2


@pytest.fixture
def server(front: SharingFront) -> Iterator[FrontServer]:
    with serve(front) as server:
        yield server


def send(server: FrontServer, front: SharingFront, **fields: Any) -> Any:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    return server.send(build_request(front.secret, body, "connection: close"))


def test_first_caller_may_leave_and_the_last_one_ends_the_run(front: SharingFront, server: FrontServer, redis: Redis):
    callers = [send(server, front, stream=True)]
    request_id = front.serve_stream(CHUNKS[0], end=None)
    eventually(lambda: front.services.runs.followers)
    callers.append(send(server, front, stream=True))
    eventually(lambda: len(front.services.runs.followers) == 2)
    callers[0].close()
    eventually(lambda: len(front.services.runs.followers) == 1)
    front.continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    reply = read_all(callers[1])
    assert b"x-farm-cache: joined" in reply
    assert all(part in reply for part in (*CHUNKS, DONE))
    settle(front)
    redis.delete(*redis.keys("farm:answer*"))
    last = send(server, front, stream=True)
    request_id = front.serve_stream(CHUNKS[0], end=None)
    eventually(lambda: front.services.runs.followers)
    last.close()
    settle(front)
    assert len(front.services.hub) == 0
    eventually(lambda: redis.keys("farm:run:*") == [])


def test_one_hit_costs_one_round_trip_and_no_job(front: SharingFront, redis: Redis):
    fill(front)

    def count() -> dict[str, int]:
        return {name: stats["calls"] for name, stats in redis.info("commandstats").items()}

    front.answer(front.ask())
    before = count()
    for _ in range(5):
        front.answer(front.ask())
    used = {name: calls - before.get(name, 0) for name, calls in count().items()}
    assert used["cmdstat_evalsha"] == 5
    assert not redis.exists(keys.served_jobs("default"))
