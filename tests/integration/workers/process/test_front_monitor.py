"""Jobs of fronts that died are removed from the queue."""

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from rq import Queue

from shared import clock, keys, names
from shared.observability.counters import Counters
from shared.protocol.relay_queue import RelayQueue, open_rq_queue
from shared.redis_connection.client import create_dedicated_pool
from tests import internals
from tests.builders import build_request
from tests.waiting import eventually
from web.reply.hub import Hub
from workers.process import front_monitor
from workers.process.front_monitor import FrontMonitor


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_rq_queue(redis, names.chat_queue("default"))


class ListeningHub(Hub):
    """A hub that has sent a heartbeat and listens."""

    def start_listening(self) -> None:
        self.send_heartbeat()
        self.listener = internals.start_listening(self)

    def stop_listening(self) -> None:
        self.listener.kill()


@pytest.fixture
def hub(redis: Redis, redis_url: str) -> Iterator[ListeningHub]:
    """The front that the test's requests belong to."""
    hub = ListeningHub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    hub.front_id = "p"
    hub.start_listening()
    yield hub
    hub.stop_listening()


class MonitorHarness:
    """A front monitor with a timeout of 0.3 seconds, and the fronts that it has found dead."""

    def __init__(self, redis: Redis) -> None:
        self.dead: list[str] = []
        self._monitor = FrontMonitor(redis, lambda: ["default"], Counters(), self.dead.append)

    def check_once(self) -> None:
        self._monitor.check()

    def check_for(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self._monitor.check()
            gevent.sleep(0.05)


@pytest.fixture
def monitor(redis: Redis, queue: Queue, hub: ListeningHub, monkeypatch: pytest.MonkeyPatch) -> MonitorHarness:
    monkeypatch.setattr(front_monitor, "FRONT_TIMEOUT_SECONDS", 0.3)
    return MonitorHarness(redis)


def test_jobs_of_a_dead_front_are_removed_and_no_others(
    redis: Redis, queue: Queue, hub: ListeningHub, monitor: MonitorHarness
):
    relay_queue = RelayQueue(redis, 100)
    for number in range(3):
        relay_queue.enqueue(build_request(f"req_{number}"), b"body")
    relay_queue.enqueue(build_request("req_other", front="other"), b"body")
    monitor.check_for(0.5)
    assert (monitor.dead, queue.count) == ([], 4)
    hub.stop_listening()
    monitor.check_for(0.5)
    assert set(monitor.dead) == {"p"}
    assert redis.lrange(queue.key, 0, -1) == [b"req_other"]
    assert redis.keys("*req_0*") == []
    assert redis.exists(keys.front_gone("p"))


def test_front_whose_host_has_vanished_is_dead_although_redis_keeps_its_subscription(
    redis: Redis, hub: ListeningHub, monitor: MonitorHarness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(front_monitor, "HEARTBEAT_GRACE_SECONDS", 0.3)
    redis.zadd(keys.FRONTS, {"p": clock.now() - front_monitor.HEARTBEAT_TIMEOUT_SECONDS + 15})
    monitor.check_for(0.5)
    assert monitor.dead == []
    redis.zadd(keys.FRONTS, {"p": clock.now() - front_monitor.HEARTBEAT_TIMEOUT_SECONDS - 1})
    monitor.check_once()
    assert monitor.dead == []
    eventually(lambda: monitor.check_once() or monitor.dead)
    assert redis.exists(keys.front_gone("p"))


def test_front_that_reconnects_is_not_taken_for_dead(redis: Redis, hub: ListeningHub, monitor: MonitorHarness):
    for _ in range(5):
        redis.client_kill_filter(_type="pubsub", skipme=True)
        monitor.check_for(0.2)
    assert monitor.dead == []


def test_front_is_not_taken_for_dead_after_a_redis_outage(
    redis: Redis, hub: ListeningHub, monitor: MonitorHarness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(front_monitor, "MAX_CHECK_GAP_SECONDS", 0.2)
    hub.stop_listening()
    for _ in range(3):
        monitor.check_once()
        gevent.sleep(0.25)
    assert monitor.dead == []


def test_quiet_front_is_not_taken_for_dead_after_a_redis_outage(
    redis: Redis, hub: ListeningHub, monitor: MonitorHarness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(front_monitor, "HEARTBEAT_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(front_monitor, "MAX_CHECK_GAP_SECONDS", 0.2)
    redis.zadd(keys.FRONTS, {"p": clock.now() - front_monitor.HEARTBEAT_TIMEOUT_SECONDS - 1})
    for _ in range(3):
        monitor.check_once()
        gevent.sleep(0.25)
    assert monitor.dead == []


def test_front_that_dies_again_loses_its_jobs_again(
    redis: Redis, queue: Queue, hub: ListeningHub, monitor: MonitorHarness
):
    for number in range(2):
        RelayQueue(redis, 100).enqueue(build_request(f"req_{number}"), b"body")
        hub.stop_listening()
        eventually(lambda: monitor.check_for(0.1) or queue.count == 0)
        hub.start_listening()
        monitor.check_for(0.1)


def test_front_that_was_taken_for_dead_returns_with_its_next_heartbeat(
    redis: Redis, hub: ListeningHub, monitor: MonitorHarness
):
    hub.stop_listening()
    monitor.check_for(0.5)
    assert redis.exists(keys.front_gone("p"))
    hub.send_heartbeat()
    assert not redis.exists(keys.front_gone("p"))
