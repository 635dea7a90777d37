"""The way back: frames published by a worker process arrive at the request they are for."""

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis

from shared.messages import Failure, FrameKind, Head
from shared.redis_client import lone_connections
from web.hub import Hub, Mailbox
from workers.publisher import Publisher

HEAD = Head(200, {}, 1, 0, 0)


@pytest.fixture
def hub(redis_url: str, redis: Redis) -> Iterator[Hub]:
    made = Hub(lone_connections(redis_url), lambda _: set())
    listener = gevent.spawn(made._listen)
    assert made._subscribed.wait(5)
    yield made
    listener.kill()


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    """A publisher that runs from `start` on."""
    made = Publisher(lone_connections(redis_url))
    runner = gevent.Greenlet(made.run)
    made.start = runner.start  # type: ignore[attr-defined]
    yield made
    runner.kill()


def collect(mailbox: Mailbox) -> list[tuple[FrameKind, bytes]]:
    found = []
    while not found or found[-1][0] not in (FrameKind.END, FrameKind.FAILURE):
        frames = mailbox.get(5)
        assert frames, "the answer does not end"
        found += [(frame.kind, frame.payload) for frame in frames]
    return found


def test_frames_that_come_together_travel_together_and_in_order(redis: Redis, hub: Hub, publisher: Publisher):
    mailbox = hub.open("req_1")
    stream = publisher.stream(hub.channel("req_1"))
    stream.head(HEAD)
    for part in (b"one", b"two", b"three"):
        stream.data(part)
    stream.end()
    redis.config_resetstat()
    publisher.start()
    assert collect(mailbox) == [(FrameKind.HEAD, HEAD.encode()), (FrameKind.DATA, b"onetwothree"), (FrameKind.END, b"")]
    assert publisher.drain(1)
    assert redis.info("commandstats")["cmdstat_publish"]["calls"] == 1


def test_answers_are_never_mixed(hub: Hub, publisher: Publisher):
    publisher.start()
    mailboxes = {f"req_{i}": hub.open(f"req_{i}") for i in range(20)}
    streams = {name: publisher.stream(hub.channel(name)) for name in mailboxes}
    for _ in range(5):
        for name, stream in streams.items():
            stream.data(name.encode() + b" ")
        gevent.sleep(0)
    for stream in streams.values():
        stream.end()
    for name, mailbox in mailboxes.items():
        data = b"".join(payload for kind, payload in collect(mailbox) if kind is FrameKind.DATA)
        assert data == (name.encode() + b" ") * 5


def test_a_lost_connection_is_made_again_on_both_sides_and_frames_go_on(redis: Redis, hub: Hub, publisher: Publisher):
    mailbox = hub.open("req_1")
    publisher.start()
    stream = publisher.stream(hub.channel("req_1"))
    stream.head(HEAD)
    assert mailbox.get(5)
    redis.client_kill_filter(_type="normal", skipme=True)
    redis.client_kill_filter(_type="pubsub", skipme=True)
    gevent.sleep(0.05)
    assert hub._subscribed.wait(5)
    gevent.sleep(0.05)
    stream.data(b"after")
    stream.fail(Failure(502, "x", "y", "z", 1))
    kinds = [kind for kind, _ in collect(mailbox)]
    assert kinds[-1] is FrameKind.FAILURE


def test_a_stream_knows_that_nobody_listens(hub: Hub, publisher: Publisher):
    publisher.start()
    stream = publisher.stream("farm:reply:nobody:req_1")
    stream.data(b"x")
    assert publisher.drain(2)
    gevent.sleep(0.02)
    assert stream.unheard() > 0
    hub.open("req_1")
    stream.channel = hub.channel("req_1")
    stream.data(b"x")
    assert publisher.drain(2)
    assert stream.unheard() == 0


def test_requests_whose_job_has_vanished_are_ended(redis_url: str, redis: Redis):
    hub = Hub(lone_connections(redis_url), set)
    hub._subscribed.set()
    mailbox = hub.open("req_1")
    mailbox.last_sign -= 60
    sweeper = gevent.spawn(hub._sweep)
    frames = mailbox.get(10)
    sweeper.kill()
    assert Failure.decode(frames[0].payload).code == "request_lost"
