"""Requests that ask the same share one run over all fronts, and outlive the front that ran it."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from redis import Redis

from shared import clock, keys
from shared.observability.request_log import LogFilter, RequestLog
from shared.protocol.messages import Failure, Frame, FrameKind, RelayRequest
from shared.protocol.relay_queue import RelayQueue
from shared.settings.schema import PoolSettings
from tests.integration.web.replay.conftest import CHUNKS, DONE, USAGE_CHUNK, WHOLE, SharingFront, settle
from tests.internals import hold_exports
from tests.waiting import eventually
from web.replay import run_export, shared_run
from web.replay.other_front_run import OtherFrontRun
from web.replay.run_export import RunExchange, RunExport
from web.replay.run_registry import RunRegistry
from web.replay.shared_run import SharedRun

STREAM = b"".join((*CHUNKS, DONE))


@pytest.fixture(scope="module")
def both(start_front: Callable[..., SharingFront]) -> list[SharingFront]:
    return [start_front(pools=(PoolSettings(join_requests=True),)) for _ in range(2)]


@pytest.fixture
def fronts(both: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SharingFront]]:
    """Two fronts, whose callers have the same API key."""
    monkeypatch.setattr(run_export, "POLL_SECONDS", 0.05)
    both[1].secret = both[0].secret
    yield both
    for front in both:
        settle(front)
    assert both[0].waiting == 0


def join(fronts: list[SharingFront], *parts: bytes, **fields: Any) -> tuple[Any, Any, str]:
    """A run in the first front that has sent so much, and a caller of the second one that has got all of it."""
    first = fronts[0].ask(**fields)
    request_id = fronts[0].serve_stream(*parts, end=None)
    second = fronts[1].ask(**fields)
    await_export(fronts, 1 + len(parts))
    return first, second, request_id


def await_export(fronts: list[SharingFront], count: int) -> None:
    """A run that ends before it has been asked for its frames is lost: it would be run anew by the second front."""
    eventually(lambda: [run for run in fronts[1].services.runs.list_running() if len(run.frames) == count])


@pytest.mark.parametrize("idempotency_key", ["", "k1"])
def test_run_is_followed_from_another_front_from_its_first_byte(fronts: list[SharingFront], idempotency_key: str):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True, idempotency_key=idempotency_key)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], USAGE_CHUNK, DONE)
    answers = [fronts[0].answer(each) for each in (first, second)]
    assert [answer.data for answer in answers] == [STREAM, STREAM]
    assert [answer.headers["x-farm-cache"] for answer in answers] == ["miss", "joined"]


def test_run_is_followed_by_each_name_that_it_has(fronts: list[SharingFront]):
    """One caller in the other front has the idempotency key, another one asks the same without it."""
    first = fronts[0].ask(stream=True, idempotency_key="k1")
    request_id = fronts[0].serve_stream(CHUNKS[0], end=None)
    eventually(lambda: len(fronts[0].services.runs.followers))
    others = []
    for idempotency_key in ("", "k1"):
        others.append(fronts[1].ask(stream=True, idempotency_key=idempotency_key))
        eventually(lambda: len(fronts[1].services.runs.followers) == len(others))
        eventually(lambda: all(run.frames for run in fronts[1].services.runs.list_running()))
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert [fronts[0].answer(each).data for each in (first, *others)] == [STREAM] * 3


def test_chunks_arrive_while_the_run_goes_on(fronts: list[SharingFront]):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == fronts[0].answer(second).data == STREAM


def test_answer_of_another_front_comes_in_the_form_that_was_asked_for(fronts: list[SharingFront]):
    first = fronts[0].ask(stream=True)
    request_id = fronts[0].serve_stream(CHUNKS[0], end=None)
    second = fronts[1].ask()
    await_export(fronts, 2)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], USAGE_CHUNK, DONE)
    whole = fronts[0].answer(second).json
    assert whole["choices"][0]["message"]["content"] == "Hi there"
    assert whole["usage"]["prompt_tokens"] == 3
    assert fronts[0].answer(first).data == STREAM


def test_run_goes_on_for_the_other_front_when_its_own_callers_have_left(fronts: list[SharingFront]):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    first.kill()
    for follower in list(fronts[0].services.runs.followers):
        follower.close()
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[1].answer(second).data == STREAM


def test_run_ends_when_the_callers_of_all_fronts_have_left(fronts: list[SharingFront], redis: Redis):
    first, second, _ = join(fronts, CHUNKS[0], stream=True)
    for front, asked in zip(fronts, (first, second), strict=True):
        asked.kill()
        for follower in list(front.services.runs.followers):
            follower.close()
    for front in fronts:
        settle(front)
    assert len(fronts[0].services.hub) == 0
    eventually(lambda: redis.keys("farm:run:*") == [])


def test_failure_reaches_the_other_front(fronts: list[SharingFront], redis: Redis):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    failure = Failure(502, "upstream_eof", "broke off").encode()
    redis.publish(fronts[0].services.hub.channel(request_id), Frame(FrameKind.FAILURE, 2, failure).encode())
    assert b"upstream_eof" in fronts[0].answer(second).data
    assert b"upstream_eof" in fronts[0].answer(first).data


def claim_for_dead_front(fronts: list[SharingFront], redis: Redis) -> None:
    """Makes the run of the first front one of a front that is about to die."""
    (name,) = redis.keys("farm:run:*")
    redis.hset(name, mapping={"front": "dying", "run": "req_lost"})
    redis.zadd(keys.FRONTS, {"dying": clock.now()})
    redis.delete(keys.front_gone("dying"))


def test_request_is_run_anew_when_its_front_dies_before_the_first_byte(fronts: list[SharingFront], redis: Redis):
    first = fronts[0].ask()
    eventually(lambda: redis.keys("farm:run:*"))
    claim_for_dead_front(fronts, redis)
    second = fronts[1].ask()
    eventually(lambda: fronts[1].services.runs.followers)
    redis.set(keys.front_gone("dying"), 1)
    eventually(lambda: fronts[0].waiting == 2)
    fronts[0].reply_to_next()
    fronts[1].serve()
    answer = fronts[1].answer(second)
    assert (answer.headers["x-farm-cache"], answer.data) == ("joined", WHOLE)
    assert fronts[0].answer(first).status_code == 200
    fronts[1].services.flush()
    # Its worker logs it.
    logged = [stored.entry.request for stored in RequestLog(redis).read_newest_first(LogFilter())]
    assert answer.headers["x-request-id"] not in logged


def test_request_whose_callers_leave_while_it_is_run_anew_leaves_the_queue(
    fronts: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    enqueuing, released, enqueue = Event(), Event(), RelayQueue.enqueue

    def enqueue_late(*args: Any) -> Any:
        enqueuing.set()
        released.wait()
        return enqueue(*args)

    first = fronts[0].ask()
    eventually(lambda: fronts[0].waiting == 1)
    claim_for_dead_front(fronts, redis)
    second = fronts[1].ask()
    eventually(lambda: fronts[1].services.runs.followers)
    monkeypatch.setattr(RelayQueue, "enqueue", enqueue_late)
    redis.set(keys.front_gone("dying"), 1)
    assert enqueuing.wait(30)
    second.kill()
    for follower in fronts[1].services.runs.followers:
        follower.close()
    released.set()
    settle(fronts[1])
    fronts[0].serve()
    assert fronts[0].answer(first).data == WHOLE


def test_answer_that_is_kept_before_it_was_exported_is_kept_for_the_key_of_who_waits(
    start_front: Callable[..., SharingFront], fronts: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    caching = [start_front(pools=(PoolSettings(cache_ttl=100),)) for _ in range(2)]
    caching[1].secret = caching[0].secret
    monkeypatch.setattr(RunExchange, "ask", lambda *_: None)
    first = caching[0].ask()
    eventually(lambda: caching[0].waiting == 1)
    second = caching[1].ask("k1")
    eventually(lambda: caching[1].services.runs.followers)
    caching[0].serve()
    assert caching[0].answer(first).data == caching[1].answer(second).data == WHOLE
    settle(caching[1])
    assert len(redis.keys("farm:answer:*")) == 2


def test_nothing_is_run_anew_for_a_caller_that_wants_only_what_is_there(
    fronts: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    follow, followed, answered = OtherFrontRun.follow, list[str](), Event()

    def follow_in_turn(run: OtherFrontRun, request: RelayRequest) -> bool:
        """Once the later caller has begun a run, the first one would be given its answer."""
        followed.append(request.id)
        if len(followed) > 1:
            answered.wait()
        return follow(run, request)

    monkeypatch.setattr(OtherFrontRun, "follow", follow_in_turn)
    first = fronts[0].ask()
    eventually(lambda: fronts[0].waiting == 1)
    claim_for_dead_front(fronts, redis)
    second = fronts[1].ask(headers={"cache-control": "only-if-cached"})
    eventually(lambda: followed)
    third = fronts[1].ask()
    eventually(lambda: len(followed) == 2 and len(fronts[1].services.runs.followers) == 2)
    redis.set(keys.front_gone("dying"), 1)
    assert fronts[1].answer(second).json["error"]["code"] == "not_cached"
    answered.set()
    eventually(lambda: fronts[0].waiting == 2)
    fronts[0].reply_to_next()
    fronts[1].serve()
    assert fronts[1].answer(third).data == WHOLE
    assert fronts[0].answer(first).status_code == 200
    settle(fronts[1])
    assert redis.keys("farm:run:*") == []


def test_callers_in_a_front_that_is_stopped_get_an_error(fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    # As it is again afterwards.
    monkeypatch.setattr(fronts[1].services.request_services.shutdown, "is_stopping", False)
    fronts[1].services.end_requests()
    assert b"shutting_down" in fronts[1].answer(second).data
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == STREAM


@pytest.mark.parametrize("asked_again", [0, 1])
def test_claim_of_a_run_that_has_ended_is_given_up(fronts: list[SharingFront], redis: Redis, asked_again: int):
    first = fronts[0].ask()
    eventually(lambda: redis.keys("farm:run:*"))
    (name,) = redis.keys("farm:run:*")
    claim = redis.hgetall(name)
    fronts[0].serve()
    assert fronts[0].answer(first).data == WHOLE
    eventually(lambda: not redis.exists(name))
    # Redis has crashed, and forgotten that it was given up.
    redis.hset(name, mapping=claim)
    second = fronts[asked_again].ask()
    eventually(lambda: fronts[0].waiting == 1)
    fronts[asked_again].serve()
    assert fronts[asked_again].answer(second).data == WHOLE


def test_short_run_that_was_asked_for_before_it_began_is_run_once(
    fronts: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_export, "POLL_SECONDS", 60.0)
    asked, released, enqueue, find = list[str](), Event(), RelayQueue.enqueue, RunRegistry.find_by_id

    def enqueue_late(*args: Any) -> Any:
        released.wait()
        return enqueue(*args)

    def note_and_find(registry: RunRegistry, run_id: str) -> SharedRun | None:
        asked.append(run_id)
        return find(registry, run_id)

    monkeypatch.setattr(RelayQueue, "enqueue", enqueue_late)
    monkeypatch.setattr(RunRegistry, "find_by_id", note_and_find)
    first = fronts[0].ask()
    eventually(lambda: redis.keys("farm:run:*"))
    second = fronts[1].ask()
    eventually(lambda: asked)
    released.set()
    fronts[0].serve()
    answers = [fronts[0].answer(each) for each in (first, second)]
    assert [answer.headers["x-farm-cache"] for answer in answers] == ["miss", "joined"]
    assert [answer.data for answer in answers] == [WHOLE, WHOLE]


def test_answer_that_has_begun_ends_with_an_error_when_its_front_dies(fronts: list[SharingFront], redis: Redis):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    redis.set(keys.front_gone(fronts[0].services.hub.front_id), 1)
    answer = fronts[1].answer(second)
    assert answer.data.startswith(CHUNKS[0])
    assert b"run_lost" in answer.data
    redis.delete(keys.front_gone(fronts[0].services.hub.front_id))
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == STREAM


def test_lost_messages_are_repaired(fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch):
    dropped = []
    receive = fronts[1].services.hub.on_message
    monkeypatch.setattr(fronts[1].services.hub, "on_message", dropped.append)
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[1].answer(second).data == STREAM
    assert fronts[0].answer(first).data == STREAM
    assert dropped
    assert receive


def test_silent_run_is_asked_for_again_and_stays_exported(fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch):
    asked, ask = list[str](), RunExport.ask

    def note_and_ask(export: RunExport, front: str) -> None:
        asked.append(front)
        ask(export, front)

    monkeypatch.setattr(RunExport, "ask", note_and_ask)
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    before = len(asked)
    eventually(lambda: len(asked) >= before + 3)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == fronts[0].answer(second).data == STREAM


def test_redis_shows_nothing_of_an_export(fronts: list[SharingFront], redis: Redis):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    eventually(lambda: redis.keys("farm:run-export:*"))
    (name,) = redis.keys("farm:run-export:*")
    assert b"Hi" not in b"".join(redis.lrange(name, 0, -1))
    assert 0 < redis.ttl(name) <= run_export.EXPORT_TTL_SECONDS
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == fronts[0].answer(second).data


def test_long_answer_passes_in_several_entries(fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_export, "ENTRY_BYTES", 500)
    middle = [CHUNKS[1]] * 100
    first, second, request_id = join(fronts, CHUNKS[0], *middle, stream=True)
    fronts[0].continue_reply(request_id, 102, CHUNKS[2], DONE)
    whole = b"".join((CHUNKS[0], *middle, CHUNKS[2], DONE))
    assert fronts[0].answer(first).data == fronts[1].answer(second).data == whole


def test_answer_too_large_to_be_kept_is_run_by_each_that_comes_later(
    fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_run, "MAX_ANSWER_BYTES", 200)
    first = fronts[0].ask(stream=True)
    request_id = fronts[0].serve_stream(*CHUNKS, end=None)
    eventually(lambda: [run for run in fronts[0].services.runs.list_running() if not run.is_kept])
    second = fronts[1].ask(stream=True)
    fronts[1].serve_stream()
    assert fronts[1].answer(second).headers["x-farm-cache"] == "miss"
    fronts[0].continue_reply(request_id, 4, DONE)
    assert fronts[0].answer(first).data == fronts[1].answer(second).data == STREAM


def test_answer_is_read_to_its_end_although_its_run_ends_before_it_is_exported(
    fronts: list[SharingFront], redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    released = Event()
    hold_exports(monkeypatch, released)
    fronts[0].continue_reply(request_id, 2, *CHUNKS[1:], DONE)
    assert fronts[0].answer(first).data == STREAM
    # Time for the other front to look, which it does every 50 ms.
    gevent.sleep(0.5)
    assert fronts[0].services.has_detached_work, "it must not end yet"
    released.set()
    assert fronts[1].answer(second).data == STREAM


def test_callers_in_another_front_get_the_rest_of_an_answer_that_is_not_kept(
    fronts: list[SharingFront], monkeypatch: pytest.MonkeyPatch
):
    first, second, request_id = join(fronts, CHUNKS[0], stream=True)
    monkeypatch.setattr(shared_run, "MAX_ANSWER_BYTES", 200)
    fronts[0].continue_reply(request_id, 2, CHUNKS[1], end=False)
    eventually(lambda: [run for run in fronts[0].services.runs.list_running() if not run.is_kept])
    gevent.sleep(0.5)
    fronts[0].continue_reply(request_id, 3, CHUNKS[2], DONE)
    assert fronts[0].answer(first).data == fronts[1].answer(second).data == STREAM
