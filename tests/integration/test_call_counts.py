"""How many Python functions a request and a chunk call, and what a request leaves behind, front and worker together:
counted, so no clock is in it.

A function that is called for each request where once per process would do, or a library that has become heavier,
shows here before it shows in a measurement.
"""

import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from redis import Redis
from werkzeug.test import EnvironBuilder

from shared.api_keys.store import ApiKeys
from shared.settings.schema import Settings
from tests.integration.harness import WorkerHarness
from tests.waiting import eventually
from web.app import create_app
from web.services import EXTENSION

REQUESTS = 20
PACKAGES = ("shared", "web", "workers")
CHUNKS = 100


class Whole:
    """A front and a worker in one process, without HTTP between caller and front."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self.app = create_app(Settings(redis_url=redis_url))
        self.parts = self.app.extensions[EXTENSION]
        self.listener = gevent.spawn(self.parts.hub._listen)
        assert self.parts.hub._subscribed.wait(5)
        self.secret, _ = ApiKeys(redis).create("test")

    def environ(self, **fields: Any) -> dict[str, Any]:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello " * 40}], **fields}
        return EnvironBuilder(
            "/v1/chat/completions",
            method="POST",
            data=json.dumps(body),
            content_type="application/json",
            headers={"authorization": f"Bearer {self.secret}"},
        ).get_environ()

    def ask(self, environ: dict[str, Any]) -> bytes:
        answer = self.app.wsgi_app(environ, lambda *_: lambda *_: None)
        try:
            return b"".join(answer)
        finally:
            answer.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.listener.kill()


def calls(work: Callable[[], None]) -> int:
    """Calls of Python functions while the work is done, by all greenlets."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture
def whole(redis: Redis, redis_url: str, harness: WorkerHarness) -> Iterator[Whole]:
    made = Whole(redis, redis_url)
    for _ in range(3):
        assert b"Uryyb" in made.ask(made.environ())
    yield made
    made.close()


def test_a_request(whole: Whole):
    environs = [whole.environ() for _ in range(REQUESTS)]
    spent = calls(lambda: [whole.ask(one) for one in environs] and None) / REQUESTS
    assert spent < 1_200, spent


def test_a_chunk(whole: Whole, harness: WorkerHarness):
    # So far apart that each travels alone: the most that one can cost, on a machine of any speed.
    harness.upstream.pace(chunks=CHUNKS, chunk_delay=0.02)
    environ = whole.environ(stream=True)
    spent = calls(lambda: whole.ask(environ) and None) / CHUNKS
    eventually(lambda: harness.redis.keys("*req_*") == [])
    assert spent < 150, spent


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_request_leaves_to_the_collector(whole: Whole, harness: WorkerHarness, stream: bool):
    environs = [whole.environ(stream=stream) for _ in range(REQUESTS)]
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for environ in environs:
            whole.ask(environ)
        eventually(lambda: harness.redis.keys("*req_*") == [])
        environs.clear()
        gc.collect()
        ours = Counter(type(one).__qualname__ for one in gc.garbage if type(one).__module__.split(".")[0] in PACKAGES)
        left = len(gc.garbage) / REQUESTS
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours
    # Werkzeug's matching of a path is a function that knows itself.
    assert left < 10, left
