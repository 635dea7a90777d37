"""Batches leave accounts to interactive requests, whatever front those came to."""

import json
from collections.abc import Callable

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from tests.integration.harness import WorkerHarness
from tests.integration.web.batches.batch_harness import BatchHarness, build_lines
from tests.upstream import Upstream
from tests.waiting import eventually
from web.batches import batch_runner
from web.batches.headroom import MAX_AGE_SECONDS, Headroom
from web.request.capacity.interactive_load import InteractiveLoad

StartFront = Callable[..., BatchHarness]
StartWorkers = Callable[..., WorkerHarness]


def test_fronts_know_of_each_others_requests_and_batches(redis: Redis):
    loads = [InteractiveLoad() for _ in range(2)]
    first, second = (Headroom(redis, f"front-{number}", load) for number, load in enumerate(loads))
    for load, pool in zip((loads[0], loads[1], loads[1]), ("a", "a", "b"), strict=True):
        load.begin(pool)
    second.exchange({"a": 2, "b": 1})
    assert (first.count_batches("a", 1), first.find_interactive("a")) == (1, (1, 1))
    first.exchange({"a": 1})
    loads[1].end("a")
    assert (first.count_batches("a", 1), first.find_interactive("a")) == (3, (2, 2))
    assert [first.count_batches(pool, 0) for pool in ("b", "c")] == [1, 0]
    second.exchange({})
    first.exchange({"a": 1})
    assert (first.count_batches("a", 1), first.find_interactive("a")) == (1, (1, 2))
    assert [first.find_interactive(pool) for pool in ("b", "c")] == [(1, 1), (0, 0)]
    assert 0 < redis.ttl(keys.FRONT_LOADS) <= 60


def test_what_a_front_told_is_out_of_date_after_a_while(redis: Redis):
    old = {"at": clock.now() - MAX_AGE_SECONDS - 1, "pools": {"a": 3}, "interactive": {"a": [1, 1]}}
    redis.hset(keys.FRONT_LOADS, "gone", json.dumps(old))
    headroom = Headroom(redis, "front", InteractiveLoad())
    headroom.exchange({"a": 1})
    assert (headroom.count_batches("a", 1), headroom.find_interactive("a")) == (1, (0, 0))


def test_requests_are_counted_while_they_are_in_flight(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    front = start_front()
    load = front.services.request_services.interactive_load
    upstream.pace(delay=0.5)
    asked = [gevent.spawn(front.call, front.build_environ(**fields)) for fields in ({}, {"service_tier": "flex"})]
    eventually(lambda: upstream.counters()["in_flight"] == 2)
    assert load.read() == {"default": (1, 1)}
    gevent.joinall(asked, raise_error=True)
    assert load.read() == {"default": (0, 1)}


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_batch_leaves_the_accounts_free_that_interactive_requests_used(
    start_front: StartFront,
    start_harness: StartWorkers,
    upstream: Upstream,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    is_elsewhere: bool,
):
    monkeypatch.setattr(batch_runner, "LOOK_SECONDS", 0.1)
    start_harness(credentials=5)
    front = start_front()
    front.start()
    load = InteractiveLoad() if is_elsewhere else front.services.request_services.interactive_load
    load.begin("default")
    load.begin("default")
    Headroom(redis, "elsewhere", load if is_elsewhere else InteractiveLoad()).exchange({})
    upstream.pace(delay=0.1)
    # A front knows the others since its first batch.
    front.wait_for_end(front.create(build_lines(1)))
    batch, seen = front.create(build_lines(30)), []
    while front.get(batch).is_unfinished:
        seen.append(upstream.counters()["in_flight"])
        gevent.sleep(0.02)
    assert front.get(batch).completed == 30
    assert 0 < max(seen) <= 3
