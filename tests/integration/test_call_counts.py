"""Function calls and garbage per request and per chunk, front and worker together.

Counts, not times: a function that is called for each request instead of once per process, or a library that has become
heavier, shows here before it shows in a measurement.
"""

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis

from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.waiting import eventually

REQUESTS = 20
PACKAGES = ("shared", "web", "workers")
CHUNKS = 100
GEVENT = str(Path(gevent.__file__).parent)


def count_calls(work: Callable[[], object]) -> int:
    """Calls of Python functions during `work`, in all greenlets.

    Those of gevent don't count: how often a greenlet waits for a socket depends on how busy the machine is.
    """
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and not frame.f_code.co_filename.startswith(GEVENT)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture
def front(redis: Redis, redis_url: str, harness: WorkerHarness) -> Iterator[FrontHarness]:
    """A front in front of the harness's worker, warmed up."""
    front = FrontHarness(redis, redis_url)
    for _ in range(3):
        assert b"Uryyb" in front.call(front.build_environ())
    yield front
    front.close()


def test_calls_per_request_are_bounded(front: FrontHarness):
    def measure() -> float:
        environs = [front.build_environ() for _ in range(3)]
        return count_calls(lambda: [front.call(environ) for environ in environs]) / len(environs)

    # The least of many short ones: background tasks only add to it, those of each second most often to none of these.
    calls = min(measure() for _ in range(REQUESTS))
    assert calls < 1_150, calls


def test_calls_per_chunk_are_bounded(front: FrontHarness, harness: WorkerHarness):
    # So far apart that each chunk is published alone: its highest cost, on a machine of any speed.
    harness.upstream.pace(chunks=CHUNKS, chunk_delay=0.02)
    environ = front.build_environ(stream=True)
    calls = count_calls(lambda: front.call(environ)) / CHUNKS
    eventually(lambda: harness.redis.keys("*req_*") == [])
    # About 100, and what background tasks do meanwhile: more on a slow machine.
    assert calls < 115, calls


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_per_request_is_bounded(front: FrontHarness, harness: WorkerHarness, stream: bool):
    environs = [front.build_environ(stream=stream) for _ in range(REQUESTS)]
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for environ in environs:
            front.call(environ)
        eventually(lambda: harness.redis.keys("*req_*") == [])
        environs.clear()
        gc.collect()
        ours = Counter(
            type(item).__qualname__ for item in gc.garbage if type(item).__module__.split(".")[0] in PACKAGES
        )
        garbage = len(gc.garbage) / REQUESTS
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours
    # Werkzeug matches a path with a function that refers to itself.
    assert garbage < 10, garbage
