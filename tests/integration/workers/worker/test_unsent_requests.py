"""Attempts that can't be made, and connections that break under one."""

import socket
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.server import StreamServer
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.protocol.messages import Failure, FrameKind
from tests.integration.harness import WorkerHarness, collect_frames
from tests.waiting import eventually
from web.reply.mailbox import Mailbox
from workers.attempt import attempt
from workers.upstream.client import UpstreamConnection

StartHarness = Callable[..., WorkerHarness]


def failure(mailbox: Mailbox) -> Failure:
    return Failure.decode(collect_frames(mailbox)[-1].payload)


@pytest.mark.parametrize(
    ("pool", "status", "code"),
    [
        ({"upstream_url": "http://127.0.0.1:80a/v1"}, 502, "upstream_misconfigured"),
        ({"upstream_url": "https:///v1"}, 502, "upstream_misconfigured"),
        ({"headers": {"x-sign": "\u2013"}}, 500, "internal_error"),
    ],
)
def test_request_that_cannot_be_sent_ends_at_once_and_blames_nobody(
    start_harness: StartHarness, pool: dict[str, object], status: int, code: str
):
    harness = start_harness(pool=pool, max_attempts=8)
    for number in range(6):
        reply = failure(harness.enqueue(f"req_{number}"))
        assert (reply.status, reply.code, reply.attempts) == (status, code, 1)
        assert reply.to_error().headers["x-farm-attempts"] == "1"
    assert harness.credential_state() == ("active", "")
    assert not harness.services.breakers["default"].is_open
    assert harness.worker.runner.health.can_work()
    eventually(lambda: harness.queue.count_waiting("default") == 0)


def test_attempt_that_redis_fails_blames_nobody(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise RedisConnectionError("away")

    with monkeypatch.context() as broken:
        broken.setattr(UpstreamConnection, "call", fail)
        reply = failure(harness.enqueue())
    assert (reply.status, reply.code) == (503, "store_unavailable")
    assert harness.credential_state() == ("active", "")
    assert "Traceback" not in caplog.text
    assert collect_frames(harness.enqueue("req_2"))[-1].kind is FrameKind.END


class DroppingUpstream:
    """Reads a request, works on it for a while, and closes the connection halfway through."""

    def __init__(self) -> None:
        self.arrivals = self.running = self.most_running = 0
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def _serve(self, client: socket.socket, address: object) -> None:
        client.recv(65536)
        self.arrivals += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        gevent.sleep(0.2)
        client.close()
        gevent.sleep(0.15)
        self.running -= 1


@pytest.fixture
def dropping_upstream() -> Iterator[DroppingUpstream]:
    upstream = DroppingUpstream()
    yield upstream
    upstream.server.stop()


def test_dropped_connections_are_counted_attempts_and_never_overlap(
    start_harness: StartHarness, dropping_upstream: DroppingUpstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workers.credentials.cooldown.BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(attempt, "MIN_REST_SECONDS", 0.0)
    harness = start_harness(pool={"upstream_url": dropping_upstream.url}, max_attempts=3)
    reply = failure(harness.enqueue())
    assert (reply.status, reply.code, reply.attempts) == (502, "upstream_unreachable", 3)
    assert dropping_upstream.arrivals == 3
    assert dropping_upstream.most_running == 1


def test_credential_rests_as_long_again_as_the_dropped_request_ran(
    start_harness: StartHarness, dropping_upstream: DroppingUpstream
):
    harness = start_harness(pool={"upstream_url": dropping_upstream.url}, max_attempts=1)
    sent_at = time.monotonic()
    collect_frames(harness.enqueue())
    ran = time.monotonic() - sent_at
    assert harness.worker.runner.health.cooldown.remaining() > 0
    rested = eventually(lambda: harness.worker.runner.health.can_work() and time.monotonic() - sent_at)
    assert rested > 0.4 + 0.2, f"after {ran} s"
    assert collect_frames(harness.enqueue("req_2"))[-1].kind is FrameKind.FAILURE
