"""A request that is repeated with its idempotency key gets the answer of the first, whatever has become of that."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.observability.request_log import LogFilter, RequestLog
from shared.protocol.job_data import decode_request
from shared.protocol.messages import Failure, Frame, FrameKind
from tests.integration.web.replay.conftest import CHUNKS, DONE, WHOLE, SharingFront, chunk, settle
from tests.integration.web.server.front_server import FrontServer, build_request, read_all, read_until, serve
from tests.waiting import eventually
from web.replay import shared_run
from web.replay.answers.answer_store import AnswerStore
from web.replay.run_registry import RunRegistry
from web.replay.shared_run import SharedRun
from web.replay.sharing import Sharing

STREAM = b"".join((*CHUNKS, DONE))


def check_replayed(response: Any, data: bytes = WHOLE, outcome: str = "hit") -> None:
    assert (response.status_code, response.data, response.headers["x-farm-cache"]) == (200, data, outcome)


def test_retry_gets_the_kept_answer_for_ten_minutes(front: SharingFront, redis: Redis):
    first = front.ask("k1")
    front.serve()
    check_replayed(front.answer(first), outcome="miss")
    settle(front)
    second = front.answer(front.ask("k1"))
    check_replayed(second)
    assert second.headers["x-request-id"] != front.answer(first).headers["x-request-id"]
    (answer,) = redis.keys("farm:answer:*")
    assert 590 < redis.ttl(answer) <= 600
    assert redis.keys("farm:run:*") == []


def test_answer_is_a_hit_as_soon_as_it_has_ended(front: SharingFront, monkeypatch: pytest.MonkeyPatch):
    may_keep, keep = Event(), AnswerStore.keep

    def keep_later(*args: Any) -> bool:
        may_keep.wait(timeout=30)
        return keep(*args)

    monkeypatch.setattr(AnswerStore, "keep", keep_later)
    first = front.ask("k1")
    front.serve()
    check_replayed(front.answer(first), outcome="miss")
    check_replayed(front.answer(front.ask("k1")))
    may_keep.set()


def test_retry_follows_the_running_answer_from_its_first_byte(front: SharingFront):
    first = front.ask("k1", stream=True)
    request_id = front.serve_stream(CHUNKS[0], end=None)
    eventually(lambda: front.services.runs.followers)
    second = front.ask("k1", stream=True)
    eventually(lambda: len(front.services.runs.followers) == 2)
    front.continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    check_replayed(front.answer(first), STREAM, "miss")
    check_replayed(front.answer(second), STREAM, "joined")
    settle(front)
    check_replayed(front.answer(front.ask("k1", stream=True)), STREAM)


def test_retries_that_come_together_run_once(front: SharingFront):
    asked = [front.ask("k1") for _ in range(20)]
    front.serve()
    outcomes = [front.answer(each).headers["x-farm-cache"] for each in asked]
    assert sorted(outcomes) == ["joined"] * 19 + ["miss"]
    assert {front.answer(each).data for each in asked} == {WHOLE}
    assert front.waiting == 0


OTHERS: list[dict[str, Any]] = [
    {"temperature": 1},
    {"model": "other"},
    {"stream": True},
    {"path": "/v1/completions"},
    {"user": "me"},
]


@pytest.mark.parametrize("has_ended", [True, False])
def test_key_that_stood_for_another_request_is_refused(front: SharingFront, has_ended: bool):
    first = front.ask("k1")
    if has_ended:
        front.serve()
        settle(front)
    else:
        eventually(lambda: front.waiting == 1)
    for other in OTHERS:
        refused = front.answer(front.ask("k1", **other))
        assert (refused.status_code, refused.json["error"]["code"]) == (422, "idempotency_key_reused")
    if not has_ended:
        front.serve()
    check_replayed(front.answer(first), outcome="miss")


def test_same_request_in_another_spelling_is_no_other_request(front: SharingFront):
    first = front.ask("k1", a=1, b=2)
    front.serve()
    settle(front)
    check_replayed(front.answer(front.ask('"k1"', b=2, a=1)))
    assert front.answer(first).status_code == 200


def test_body_that_parsers_read_differently_is_compared_byte_for_byte(front: SharingFront):
    headers = {"authorization": f"Bearer {front.secret}", "idempotency-key": "k1", "content-type": "application/json"}
    bodies = [b'{"model": "m", "messages": [], "top_p": 1, "top_p": %d}' % number for number in (2, 2, 3)]

    def post(body: bytes) -> Any:
        return gevent.spawn(front.client.post, "/v1/chat/completions", data=body, headers=headers)

    first = post(bodies[0])
    front.serve()
    assert front.answer(first).status_code == 200
    settle(front)
    assert [front.answer(post(body)).status_code for body in bodies[1:]] == [200, 422]


def test_form_is_the_same_with_another_boundary(front: SharingFront):
    first = front.ask_form("one", "sound", "k1")
    front.serve("application/json", b'{"text": "sound"}')
    assert front.answer(first).status_code == 200
    settle(front)
    check_replayed(front.answer(front.ask_form("two", "sound", "k1")), b'{"text": "sound"}')
    assert front.answer(front.ask_form("three", "noise", "k1")).status_code == 422


def test_keys_of_different_callers_have_nothing_to_do_with_each_other(front: SharingFront, redis: Redis):
    secret, _ = ApiKeys(redis).create("other")
    first = front.ask("k1")
    front.serve()
    settle(front)
    second = front.ask("k1", secret)
    front.serve("application/json", WHOLE.replace(b"Hi", b"Ho"))
    assert b"Ho" in front.answer(second).data
    assert b"Hi" in front.answer(first).data


def test_upstream_still_gets_the_key(front: SharingFront, redis: Redis):
    front.ask("k1")
    eventually(lambda: front.waiting == 1)
    (job,) = redis.lrange("rq:queue:chat:default", 0, -1)
    assert decode_request(redis.hget(f"rq:job:{job.decode()}", "data")).headers["idempotency-key"] == "k1"
    front.serve()


FAILED = Failure(502, "upstream_eof", "broke off").encode()


@pytest.mark.parametrize(
    ("content_type", "parts", "options"),
    [
        ("application/json", [b'{"error": {"message": "no"}}'], {"status": 400}),
        ("application/json", [b'{"error": {"message": "no"}}'], {"status": 429}),
        ("application/json", [b'{"choices": []}'], {}),
        ("application/json", [WHOLE.replace(b'"stop"', b"null")], {}),
        ("application/json", [WHOLE.replace(b'"stop"', b'"content_filter"')], {}),
        ("text/event-stream", [*CHUNKS[:2], DONE], {}),
        ("text/event-stream", [*CHUNKS, b'data: {"error": {"message": "no"}}\n\n'], {}),
        ("text/event-stream", [*CHUNKS, chunk(choices=[{"index": 1, "delta": {"content": "x"}}]), DONE], {}),
    ],
)
def test_answer_that_is_not_whole_and_good_is_not_kept(
    front: SharingFront, redis: Redis, content_type: str, parts: list[bytes], options: dict[str, Any]
):
    is_stream = content_type == "text/event-stream"
    first = front.ask("k1", stream=is_stream)
    front.serve(content_type, *parts, **options)
    assert front.answer(first).data == b"".join(parts)
    settle(front)
    assert redis.keys("farm:answer*") == []
    eventually(lambda: redis.keys("farm:run:*") == [])
    second = front.ask("k1", stream=is_stream)
    front.serve()
    assert front.answer(second).headers["x-farm-cache"] == "miss"


def test_failed_request_is_run_again(front: SharingFront, redis: Redis):
    first, second = (front.ask("k1", stream=True) for _ in range(2))
    request_id = front.serve_stream(CHUNKS[0], end=None)
    eventually(lambda: len(front.services.runs.followers) == 2)
    redis.publish(front.services.hub.channel(request_id), Frame(FrameKind.FAILURE, 2, FAILED).encode())
    for asked in (first, second):
        assert front.answer(asked).data.startswith(CHUNKS[0] + b'data: {"error"')
    settle(front)
    third = front.ask("k1", stream=True)
    front.serve_stream()
    check_replayed(front.answer(third), STREAM, "miss")


def test_refused_request_is_run_again(start_front: Callable[..., SharingFront], redis: Redis):
    front = start_front(max_queue=1)
    running = front.ask()
    eventually(lambda: front.waiting == 1)
    assert front.answer(front.ask("k1")).status_code == 429
    front.serve()
    front.answer(running)
    second = front.ask("k1")
    front.serve()
    check_replayed(front.answer(second), outcome="miss")


def test_answer_that_is_too_large_reaches_its_callers_and_is_run_again(
    front: SharingFront, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_run, "MAX_ANSWER_BYTES", 200)
    first, second = (front.ask("k1", stream=True) for _ in range(2))
    front.serve_stream()
    assert [front.answer(each).data for each in (first, second)] == [STREAM, STREAM]
    settle(front)
    assert redis.keys("farm:answer*") == []
    third = front.ask("k1", stream=True)
    front.serve_stream()
    check_replayed(front.answer(third), STREAM, "miss")


def test_caller_gets_its_answer_although_it_can_not_be_kept(front: SharingFront, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> Any:
        raise RedisConnectionError("away")

    monkeypatch.setattr("web.replay.answer_keeper.retry_for", lambda work: work())
    monkeypatch.setattr("web.replay.answers.answer_store.AnswerStore.keep", fail)
    first = front.ask("k1")
    front.serve()
    check_replayed(front.answer(first), outcome="miss")
    settle(front)
    second = front.ask("k1")
    front.serve()
    check_replayed(front.answer(second), outcome="miss")


def test_copies_are_refused_together_when_redis_is_away(front: SharingFront, monkeypatch: pytest.MonkeyPatch):
    looked, tried, released, find = list[Sharing](), list[str](), Event(), RunRegistry.find

    def look(registry: RunRegistry, sharing: Sharing) -> SharedRun | None:
        looked.append(sharing)
        return find(registry, sharing)

    def fail(_: AnswerStore, run_id: str, *args: Any) -> Any:
        tried.append(run_id)
        released.wait()
        raise RedisConnectionError("away")

    monkeypatch.setattr("web.replay.run_registry.retry_for", lambda work: work())
    monkeypatch.setattr(AnswerStore, "claim", fail)
    monkeypatch.setattr(RunRegistry, "find", look)
    asked = [front.ask("k1") for _ in range(5)]
    eventually(lambda: len(looked) == 5)
    released.set()
    answers = [front.answer(each) for each in asked]
    assert {(answer.status_code, answer.json["error"]["code"]) for answer in answers} == {(503, "store_unavailable")}
    assert len(tried) == 1
    monkeypatch.undo()
    retried = front.ask("k1")
    front.serve()
    check_replayed(front.answer(retried), outcome="miss")


def test_claim_lasts_as_long_as_its_request_may_take(start_front: Callable[..., SharingFront], redis: Redis):
    front = start_front(total_timeout=7200.0)
    asked = front.ask("k1")
    (name,) = eventually(lambda: redis.keys("farm:run:*"))
    assert 7200 < redis.ttl(name) <= 7260
    front.serve()
    check_replayed(front.answer(asked), outcome="miss")


def test_redis_shows_neither_request_nor_answer(front: SharingFront, redis: Redis):
    asked = front.ask("the-key", messages=[{"role": "user", "content": "a secret question"}])
    front.serve("application/json", WHOLE.replace(b"Hi", b"a secret answer"))
    front.answer(asked)
    settle(front)
    front.answer(front.ask("the-key", messages=[{"role": "user", "content": "a secret question"}]))
    front.services.flush()
    # Those are the worker's, which is played here.
    names = [name for name in redis.keys("*") if not name.startswith((b"farm:body", b"rq:job:"))]
    assert [name for name in names if name.startswith(b"farm:answer:")]
    everything = b"".join(name + redis.dump(name) for name in names)
    assert not any(word in everything for word in (b"secret", b"the-key", b"question"))


def test_log_tells_who_got_an_answer_for_nothing(front: SharingFront, redis: Redis):
    first, joined = front.ask("k1"), front.ask("k1")
    front.serve()
    request_ids = [front.answer(each).headers["x-request-id"] for each in (first, joined)]
    settle(front)
    request_ids.append(front.answer(front.ask("k1")).headers["x-request-id"])
    front.services.flush()
    entries = [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter())]
    # The worker logs the one that was run.
    assert [(entry.request, entry.end) for entry in reversed(entries)] == [
        (request_ids[1], "joined"),
        (request_ids[2], "hit"),
    ]
    assert {(entry.status, entry.code, entry.endpoint, entry.model) for entry in entries} == {
        (200, "", "/chat/completions", "m")
    }
    assert not any(entry.prompt_tokens or entry.completion_tokens or entry.attempts for entry in entries)


def test_answers_that_cost_nothing_count_as_requests_per_minute_only(front: SharingFront, redis: Redis):
    secret, _ = ApiKeys(redis).create("limited", rpm=2, concurrency=1, tpm=100_000, max_waiting=0)
    first = front.ask("k1", secret)
    front.serve()
    front.answer(first)
    settle(front)
    second = front.answer(front.ask("k1", secret))
    check_replayed(second)
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-remaining-tokens" not in second.headers
    refused = front.answer(front.ask("k1", secret))
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")


def test_run_of_a_front_that_has_died_is_taken_over(front: SharingFront, redis: Redis):
    first = front.ask("k1")
    front.serve()
    settle(front)
    (answer,) = redis.keys("farm:answer:*")
    name = answer.decode().rpartition(":")[2]
    print_ = redis.lindex(answer, 0)
    redis.delete(answer)
    redis.hset(keys.shared_run(name), mapping={"front": "dead", "run": "req_x", "print": print_})
    redis.set(keys.front_gone("dead"), 1)
    second = front.ask("k1")
    front.serve()
    check_replayed(front.answer(second), outcome="miss")
    assert front.answer(first).status_code == 200


def test_front_that_ends_gives_its_runs_up(front: SharingFront, redis: Redis):
    asked = front.ask("k1")
    eventually(lambda: redis.keys("farm:run:*"))
    front.services.shut_down()
    assert redis.keys("farm:run:*") == []
    front.serve()
    front.answer(asked)


def test_malformed_key_is_refused(front: SharingFront):
    for header in ('"open', '"a"b"', "a b", '""'):
        refused = front.answer(front.ask(header))
        assert (refused.status_code, refused.json["error"]["code"]) == (400, "invalid_idempotency_key")


@pytest.fixture
def server(front: SharingFront) -> Iterator[FrontServer]:
    with serve(front) as server:
        yield server


def send(server: FrontServer, front: SharingFront, *headers: str, **fields: Any) -> Any:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    return server.send(build_request(front.secret, body, "connection: close", *headers))


def test_answer_to_a_caller_that_has_left_is_drained_and_kept(front: SharingFront, server: FrontServer):
    caller = send(server, front, "idempotency-key: k1", stream=True)
    request_id = front.serve_stream(CHUNKS[0], end=None)
    read_until(caller, CHUNKS[0])
    caller.close()
    eventually(lambda: not front.services.runs.followers)
    front.continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    settle(front)
    retry = read_all(send(server, front, "idempotency-key: k1", stream=True))
    assert b"x-farm-cache: hit" in retry
    assert STREAM in retry
    assert front.waiting == 0


def test_request_of_a_caller_that_has_left_stays_in_the_queue(front: SharingFront, server: FrontServer):
    send(server, front, "idempotency-key: k1").close()
    eventually(lambda: [run for run in front.services.runs.list_running() if not run.has_followers])
    assert front.waiting == 1
    assert front.services.has_detached_work
    retry = send(server, front, "idempotency-key: k1")
    front.serve()
    assert WHOLE in read_all(retry)


def test_answer_that_is_too_large_to_keep_ends_with_its_last_caller(
    front: SharingFront, server: FrontServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_run, "MAX_ANSWER_BYTES", 200)
    caller = send(server, front, "idempotency-key: k1", stream=True)
    front.serve_stream(*CHUNKS, end=None)
    read_until(caller, CHUNKS[0])
    caller.close()
    settle(front)
    assert redis.keys("farm:run:*") == []
