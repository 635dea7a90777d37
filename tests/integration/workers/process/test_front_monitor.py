"""Web processes that die: nobody works for those who waited there."""

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from rq import Queue

from shared import keys, names
from shared.observability.counters import Counters
from shared.protocol.relay_queue import RelayQueue, open_rq_queue
from shared.redis_connection.client import create_dedicated_pool
from tests.builders import build_request
from web.reply.hub import Hub
from workers.process import front_monitor
from workers.process.front_monitor import FrontMonitor


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_rq_queue(redis, names.chat_queue("default"))


@pytest.fixture
def hub(redis: Redis, redis_url: str) -> Iterator[Hub]:
    """The front that the test's requests wait in."""
    made = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    made.front_id = "p"
    made.send_heartbeat()
    greenlet = gevent.spawn(made._listen)
    made._subscribed.wait(5)
    made.listener = greenlet  # type: ignore[attr-defined]
    yield made
    greenlet.kill()


@pytest.fixture
def looking(redis: Redis, queue: Queue, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> tuple[FrontMonitor, list[str]]:
    monkeypatch.setattr(front_monitor, "FRONT_TIMEOUT_SECONDS", 0.3)
    gone: list[str] = []
    return FrontMonitor(redis, lambda: ["default"], Counters(), gone.append), gone


def look(seen: FrontMonitor, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        seen.check()
        gevent.sleep(0.05)


def test_the_jobs_of_a_web_process_that_died_are_taken_out_and_no_others(
    redis: Redis, queue: Queue, hub: Hub, looking: tuple[FrontMonitor, list[str]]
):
    relay_queue = RelayQueue(redis, 100)
    for number in range(3):
        relay_queue.enqueue(build_request(f"req_{number}"), b"body")
    relay_queue.enqueue(build_request("req_other", front="other"), b"body")
    fronts_, gone = looking
    look(fronts_, 0.5)
    assert (gone, queue.count) == ([], 4)
    hub.listener.kill()  # type: ignore[attr-defined]
    look(fronts_, 0.5)
    assert set(gone) == {"p"}
    assert redis.lrange(queue.key, 0, -1) == [b"req_other"]
    assert redis.keys("*req_0*") == []
    assert redis.exists(keys.front_gone("p"))


def test_one_that_only_lost_its_connection_for_a_moment_is_not_taken_for_dead(
    redis: Redis, hub: Hub, looking: tuple[FrontMonitor, list[str]]
):
    for _ in range(5):
        redis.client_kill_filter(_type="pubsub", skipme=True)
        look(looking[0], 0.2)
    assert looking[1] == []


def test_a_redis_that_was_away_says_nothing_about_anybody(
    redis: Redis, hub: Hub, looking: tuple[FrontMonitor, list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(front_monitor, "MAX_CHECK_GAP_SECONDS", 0.2)
    hub.listener.kill()  # type: ignore[attr-defined]
    for _ in range(3):
        looking[0].check()
        gevent.sleep(0.25)
    assert looking[1] == []


def test_one_that_was_taken_for_dead_comes_back_with_its_next_sign(
    redis: Redis, hub: Hub, looking: tuple[FrontMonitor, list[str]]
):
    hub.listener.kill()  # type: ignore[attr-defined]
    look(looking[0], 0.5)
    assert redis.exists(keys.front_gone("p"))
    hub.send_heartbeat()
    assert not redis.exists(keys.front_gone("p"))


def test_one_that_listens_again_takes_its_mark_back_before_it_admits_anything(redis: Redis, redis_url: str):
    again = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    redis.set(keys.front_gone(again.front_id), 1)
    greenlet = gevent.spawn(again._listen)
    again.open("req_1")
    assert not redis.exists(keys.front_gone(again.front_id))
    greenlet.kill()


def test_what_redis_took_in_though_its_caller_was_refused_is_cancelled_later(redis: Redis, redis_url: str):
    relay_queue = RelayQueue(redis, 100)
    relay_queue.enqueue(build_request("req_1"), b"body")
    tries = []

    def cancel(pool: str, request_id: str) -> None:
        tries.append(request_id)
        if len(tries) == 1:
            raise ConnectionError("away")
        relay_queue.cancel(pool, request_id)

    hub = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), cancel)
    hub.abandoned["req_1"] = "default"
    hub._cancel_abandoned()
    assert relay_queue.count_waiting("default") == 1
    hub._cancel_abandoned()
    assert (relay_queue.count_waiting("default"), hub.abandoned) == (0, {})
