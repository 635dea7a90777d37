"""A front's hub keeps its subscription, and gives up or cancels lost requests."""

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.protocol.messages import Failure
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.client import create_dedicated_pool
from tests import internals
from tests.builders import build_request
from tests.waiting import eventually
from web.reply.hub import Hub


def test_hub_clears_its_gone_mark_before_it_opens_a_mailbox(redis: Redis, redis_url: str):
    hub = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    redis.set(keys.front_gone(hub.front_id), 1)
    listener = internals.spawn_listener(hub)
    hub.open("req_1")
    assert not redis.exists(keys.front_gone(hub.front_id))
    listener.kill()


def test_hub_retries_the_cancel_of_an_abandoned_request(redis: Redis, redis_url: str):
    relay_queue = RelayQueue(redis, 100)
    relay_queue.enqueue(build_request("req_1"), b"body")
    tries = []

    def cancel(pool: str, request_id: str) -> None:
        tries.append(request_id)
        if len(tries) == 1:
            raise RedisConnectionError("away")
        relay_queue.cancel(pool, request_id)

    hub = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), cancel)
    hub.abandoned["req_1"] = "default"
    internals.cancel_abandoned(hub)
    assert relay_queue.count_waiting("default") == 1
    internals.cancel_abandoned(hub)
    assert (relay_queue.count_waiting("default"), hub.abandoned) == (0, {})


def test_hub_fails_requests_whose_job_has_vanished_but_not_those_still_being_enqueued(redis_url: str, redis: Redis):
    hub = Hub(redis, create_dedicated_pool(redis_url), set, lambda *_: None)
    internals.mark_subscribed(hub)
    mailbox, unsent = hub.open("req_1"), hub.open("req_2")
    mailbox.is_enqueued = True
    mailbox.last_frame_at -= 60
    unsent.last_frame_at -= 60
    sweeper = internals.spawn_sweep(hub)
    frames = mailbox.get(30)
    assert unsent.get(0) == [], "a job that is not in Redis yet has not vanished"
    sweeper.kill()
    assert Failure.decode(frames[0].payload).code == "request_lost"


def test_hub_reconnects_to_a_redis_that_does_not_reply_to_a_ping(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.reply.hub.PING_AFTER_SECONDS", 0.1)
    hub = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    listener = internals.start_listening(hub)
    server = psutil.Process(redis.info("server")["process_id"])
    redis.publish(hub.channel("nobody"), b"")
    server.suspend()
    try:
        eventually(lambda: not hub.is_listening)
    finally:
        server.resume()
    eventually(lambda: hub.is_listening)
    listener.kill()
