"""No worker is idle while a job that it could run waits, whatever order jobs come, end and are cancelled in (I2)."""

import json
import random
from collections.abc import Callable, Iterator

import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from tests.integration.harness import WorkerHarness
from tests.waiting import eventually

WORKERS = 4
STEPS = 25
RESPONSE = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]}).encode()


class HeldUpstream:
    """An upstream that holds each request until the test releases it."""

    def __init__(self) -> None:
        self.held: dict[str, Event] = {}
        self._server = WSGIServer(("127.0.0.1", 0), self._respond, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def _respond(self, environ, start_response) -> list[bytes]:
        request = json.load(environ["wsgi.input"])["model"]
        assert request not in self.held, "a job was begun twice"
        released = self.held[request] = Event()
        released.wait()
        start_response("200 OK", [("content-type", "application/json")])
        return [RESPONSE]

    def release(self, request: str) -> None:
        self.held.pop(request).set()

    def close(self) -> None:
        for request in list(self.held):
            self.release(request)
        self._server.stop()


@pytest.fixture
def upstream_that_holds() -> Iterator[HeldUpstream]:
    upstream = HeldUpstream()
    yield upstream
    upstream.close()


class Load:
    """Requests that are enqueued, end and are cancelled at random."""

    def __init__(self, harness: WorkerHarness, upstream: HeldUpstream, draw: random.Random) -> None:
        self.upstream = upstream
        #: Requests that have neither ended nor been cancelled.
        self.unfinished: list[str] = []
        self._harness = harness
        self._draw = draw
        self._count = 0

    def enqueue(self) -> None:
        self._count += 1
        request = f"req_{self._count}"
        band, key = self._draw.choice(["interactive", "batch"]), self._draw.choice("abc")
        self.unfinished.append(request)
        self._harness.enqueue(request, json.dumps({"model": request}).encode(), band=band, key=key)

    def end_one(self) -> None:
        running = [request for request in self.unfinished if request in self.upstream.held]
        if running:
            request = self._draw.choice(running)
            self.unfinished.remove(request)
            self.upstream.release(request)

    def cancel_one(self) -> None:
        if self.unfinished:
            request = self.unfinished.pop(self._draw.randrange(len(self.unfinished)))
            self._harness.queue.cancel("default", request)

    def step(self) -> None:
        """Does one to five of these at once."""
        for _ in range(self._draw.randint(1, 5)):
            self._draw.choices([self.enqueue, self.end_one, self.cancel_one], [3, 2, 1])[0]()

    def is_conserved(self) -> bool:
        """Whether as many requests as possible are at the upstream; it drops those whose caller has gone."""
        for request in set(self.upstream.held) - set(self.unfinished):
            self.upstream.release(request)
        return len(self.upstream.held) == min(WORKERS, len(self.unfinished))


# A caller who leaves while the worker connects leaves the socket to the garbage collector, in urllib3.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket object:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", [1, 2])
def test_no_worker_is_idle_while_a_job_waits(
    start_harness: Callable[..., WorkerHarness], upstream_that_holds: HeldUpstream, seed: int
):
    pool = {"upstream_url": upstream_that_holds.url}
    harness = start_harness(pool=pool, credentials=WORKERS, first_byte_timeout=300.0, total_timeout=600.0)
    load = Load(harness, upstream_that_holds, random.Random(seed))
    for _ in range(STEPS):
        load.step()
        eventually(load.is_conserved)
    while load.unfinished:
        load.end_one()
        eventually(load.is_conserved)
    eventually(lambda: harness.count_idle() == WORKERS)
