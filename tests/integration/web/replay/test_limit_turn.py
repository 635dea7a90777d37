"""A request that gets the answer to another one waits for its key's limit, or is refused, as if it were run."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.observability.request_log import LogFilter, RequestLog
from shared.settings.schema import PoolSettings
from tests.integration.web.replay.conftest import CHUNKS, DONE, WHOLE, SharingFront, settle
from tests.integration.web.server.front_server import build_request, read_until, serve
from tests.internals import ask_for_turn
from tests.waiting import eventually
from web.replay import limit_turn

STREAM = b"".join((*CHUNKS, DONE))
#: Seconds; the window of a limit is a minute.
QUEUE_TIMEOUT = 20.0


@pytest.fixture(scope="module")
def caching(start_front: Callable[..., SharingFront]) -> SharingFront:
    return start_front(pools=(PoolSettings(cache_ttl=100),), queue_timeout=QUEUE_TIMEOUT, keepalive=0.05)


@pytest.fixture
def front(caching: SharingFront, redis: Redis) -> Iterator[SharingFront]:
    yield caching
    assert caching.waiting == 0
    settle(caching)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait notice at once that time is over."""
    monkeypatch.setattr(limit_turn, "MAX_WAIT_SECONDS", 0.02)


class LimitedKey:
    """A key with two requests per minute, of which it has made one, whose answer is kept."""

    def __init__(self, front: SharingFront, **fields: Any) -> None:
        self._redis = front.redis
        self.secret, key = ApiKeys(front.redis).create("limited", rpm=2, **fields)
        self.requests = keys.recent_requests(key.id)
        self.use(front)

    def use(self, front: SharingFront) -> None:
        asked = front.ask(secret=self.secret, stream=True)
        front.serve_stream()
        # Behind comments, if the machine is slow.
        assert front.answer(asked).data.endswith(STREAM)
        settle(front)

    def fill_minute(self, seconds_left: float = 10) -> None:
        """The key may make no request for so many seconds."""
        self._redis.delete(self.requests)
        self._redis.rpush(self.requests, *[clock.now() - 60 + seconds_left] * 2)

    def end_minute(self, front: SharingFront) -> None:
        """The key may make two requests; those who wait for it ask now."""
        self.fill_minute(-1)
        for follower in front.services.runs.followers:
            ask_for_turn(follower)


def ask(front: SharingFront, key: LimitedKey, **fields: Any) -> Any:
    return front.ask(secret=key.secret, **fields)


def count_waiting(front: SharingFront, count: int) -> None:
    eventually(lambda: len(front.services.runs.followers) == count)


def test_kept_answer_comes_when_the_minute_lets_it(front: SharingFront, redis: Redis):
    key = LimitedKey(front)
    key.fill_minute()
    asked = [ask(front, key, stream=True) for _ in range(2)]
    count_waiting(front, 2)
    key.end_minute(front)
    answers = [front.answer(each) for each in asked]
    assert [answer.headers["x-farm-cache"] for answer in answers] == ["hit", "hit"]
    assert [answer.headers["x-queue-position"] for answer in answers] == ["1", "2"]
    assert {answer.headers["x-ratelimit-remaining-requests"] for answer in answers} == {"0"}
    assert all(0 < int(answer.headers["x-queue-eta-ms"]) <= 10_020 for answer in answers)
    assert all(answer.data.endswith(STREAM) for answer in answers)
    assert redis.llen(key.requests) == 2, "those of the minute before are gone, and each is counted once"


def test_running_answer_is_joined_when_the_minute_lets_it(front: SharingFront):
    key = LimitedKey(front)
    first = ask(front, key, temperature=1)
    request_id = front.serve("application/json", WHOLE, end=None)
    key.fill_minute()
    second = ask(front, key, temperature=1)
    count_waiting(front, 2)
    front.continue_reply(request_id, 2)
    assert front.answer(first).data == WHOLE
    key.end_minute(front)
    assert front.answer(second).data == WHOLE
    assert front.answer(second).headers["x-queue-position"] == "1"


def test_request_waits_behind_held_ones(front: SharingFront):
    key = LimitedKey(front)
    key.fill_minute()
    held = ask(front, key, temperature=1)
    count_waiting(front, 1)
    behind = ask(front, key)
    count_waiting(front, 2)
    key.end_minute(front)
    front.serve()
    assert front.answer(held).headers["x-farm-cache"] == "miss"
    assert front.answer(behind).headers["x-queue-position"] == "2"


@pytest.mark.parametrize(("max_waiting", "seconds_left"), [(0, 10), (1000, 50)])
def test_request_that_may_not_wait_is_refused_as_one_that_would_be_run(
    front: SharingFront, max_waiting: int, seconds_left: float
):
    key = LimitedKey(front, max_waiting=max_waiting)
    key.fill_minute(seconds_left)
    run, hit = (front.answer(ask(front, key, stream=True, **fields)) for fields in ({"temperature": 1}, {}))
    for refused in (hit, run):
        assert (refused.status_code, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert set(hit.headers.keys()) == set(run.headers.keys())
    # Each is told to come back later than the one before it.
    assert 1 <= int(run.headers["retry-after"]) < int(hit.headers["retry-after"])


def test_kept_answers_that_wait_have_bounded_bytes(front: SharingFront, monkeypatch: pytest.MonkeyPatch):
    key = LimitedKey(front)
    key.fill_minute()
    monkeypatch.setattr(limit_turn, "MAX_WAITING_BYTES", 2 * len(STREAM))
    first = ask(front, key, stream=True)
    count_waiting(front, 1)
    refused = front.answer(ask(front, key, stream=True))
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 11
    key.end_minute(front)
    assert front.answer(first).data.endswith(STREAM)


def test_request_whose_turn_does_not_come_in_time_is_refused(
    front: SharingFront, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    key = LimitedKey(front)
    key.fill_minute()
    asked = ask(front, key)
    count_waiting(front, 1)
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + QUEUE_TIMEOUT)
    refused = front.answer(asked)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_timeout")
    front.services.flush()
    (logged,) = [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter(code="queue_timeout"))]
    assert (logged.status, logged.request) == (429, refused.headers["x-request-id"])


def test_stream_that_waits_is_kept_alive_and_its_caller_may_leave(front: SharingFront):
    key = LimitedKey(front)
    key.fill_minute()
    with serve(front) as server:
        body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
        caller = server.send(build_request(key.secret, body, "connection: close"))
        count_waiting(front, 1)
        read_until(caller, b": keep-alive")
        caller.close()
        count_waiting(front, 0)


def test_front_that_is_stopped_refuses_those_that_wait(start_front: Callable[..., SharingFront], redis: Redis):
    front = start_front(pools=(PoolSettings(cache_ttl=100),))
    key = LimitedKey(front)
    key.fill_minute()
    asked = ask(front, key)
    count_waiting(front, 1)
    front.services.begin_shutdown()
    for refused in (front.answer(asked), front.answer(ask(front, key))):
        assert (refused.status_code, refused.json["error"]["code"]) == (503, "shutting_down")
