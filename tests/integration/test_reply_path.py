"""Frames that a worker process publishes arrive, complete and in order, at the front's request."""

import time
from collections.abc import Iterator

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import FrameKind, Head
from shared.protocol.reply_acks import WINDOW_BYTES
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect, create_dedicated_pool
from shared.redis_connection.in_flight_limit import WINDOW_SECONDS, InFlightLimit
from tests import internals
from tests.waiting import eventually
from web.reply.hub import Hub
from web.reply.mailbox import MAX_BUFFERED_BYTES, Mailbox
from workers.process.command_listener import CommandListener
from workers.reply.outbox import Outbox
from workers.reply.publisher import Publisher
from workers.reply.stream_registry import StreamRegistry

HEAD = Head(200, {}, 1, 0, 0)


@pytest.fixture
def hub(redis_url: str, redis: Redis) -> Iterator[Hub]:
    hub = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    greenlets = [internals.start_listening(hub), gevent.spawn(hub.ack_publisher.run), internals.spawn_gap_checks(hub)]
    yield hub
    gevent.killall(greenlets)


class WorkerSide:
    """The reply streams of a worker process; it listens to the fronts, and publishes from `start` on."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self.counters = Counters()
        self.outbox = Outbox()
        self.streams = StreamRegistry(self.outbox, self.counters)
        self.limit = InFlightLimit()
        self.pipeline = AutoPipeline(connect(redis_url), eager=True, limit=self.limit, piggyback=self.outbox.take_batch)
        self._publisher = gevent.Greenlet(Publisher(self.outbox, self.pipeline).run)
        self._listener = gevent.spawn(CommandListener(redis, self.streams.handle_acks).run)

    def start(self) -> None:
        self._publisher.start()

    def close(self) -> None:
        gevent.killall([self._publisher, self._listener])


@pytest.fixture
def worker_side(redis: Redis, redis_url: str) -> Iterator[WorkerSide]:
    side = WorkerSide(redis, redis_url)
    eventually(lambda: redis.pubsub_numsub(keys.REPLY_ACKS)[0][1])
    yield side
    side.close()


def collect(mailbox: Mailbox) -> list[tuple[FrameKind, bytes]]:
    received = []
    while not received or received[-1][0] not in (FrameKind.END, FrameKind.FAILURE):
        frames = mailbox.get(30)
        assert frames, "the reply does not end"
        received += [(frame.kind, frame.payload) for frame in frames]
    return received


def test_frames_sent_together_are_published_together_in_order(redis: Redis, hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    for part in (b"one", b"two", b"three"):
        stream.send_data(part)
    stream.send_end()
    redis.config_resetstat()
    worker_side.start()
    assert collect(mailbox) == [(FrameKind.HEAD, HEAD.encode()), (FrameKind.DATA, b"onetwothree"), (FrameKind.END, b"")]
    assert worker_side.outbox.wait_until_idle(1)
    assert redis.info("commandstats")["cmdstat_publish"]["calls"] == 1


def test_concurrent_replies_are_never_mixed(hub: Hub, worker_side: WorkerSide):
    worker_side.start()
    mailboxes = {f"req_{i}": hub.open(f"req_{i}") for i in range(20)}
    streams = {name: worker_side.streams.open_stream(hub.channel(name)) for name in mailboxes}
    for _ in range(5):
        for name, stream in streams.items():
            stream.send_data(name.encode() + b" ")
        gevent.sleep(0)
    for stream in streams.values():
        stream.send_end()
    for name, mailbox in mailboxes.items():
        data = b"".join(payload for kind, payload in collect(mailbox) if kind is FrameKind.DATA)
        assert data == (name.encode() + b" ") * 5


def collect_body(mailbox: Mailbox) -> bytes:
    frames = collect(mailbox)
    assert frames[-1][0] is FrameKind.END
    return b"".join(payload for kind, payload in frames if kind is FrameKind.DATA)


def test_frames_published_while_the_front_was_deaf_are_retransmitted(redis: Redis, hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    for number in range(40):
        stream.send_data(b"%d " % number)
        if number % 4 == 0:
            redis.client_kill_filter(_type="pubsub", skipme=True)
        if number % 7 == 0:
            redis.client_kill_filter(_type="normal", skipme=True)
        gevent.sleep(0.01)
    stream.send_end()
    assert collect_body(mailbox) == b"".join(b"%d " % number for number in range(40))
    assert worker_side.counters.value("frames_replayed") > 0, "nothing had to be retransmitted"


def test_lost_end_of_a_reply_is_requested_again(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    assert mailbox.get(30)
    stream.channel = "farm:reply:nobody:req_1"
    stream.send_data(b"lost")
    stream.send_end()
    assert worker_side.outbox.wait_until_idle(2)
    stream.channel = hub.channel("req_1")
    assert collect_body(mailbox) == b"lost"


def test_reply_is_retained_until_the_front_acknowledges_it(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    stream.send_data(b"x")
    stream.send_end()
    assert collect_body(mailbox) == b"x"
    assert stream.retained_bytes() > 0
    hub.close(mailbox)
    streams = worker_side.streams
    eventually(
        lambda: not (internals.open_streams(streams) or internals.ended_channels(streams) or stream.retained_bytes())
    )


def test_slow_caller_causes_backpressure_and_buffers_are_bounded(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    sent = []

    def produce() -> None:
        stream.send_head(HEAD)
        for _ in range(100):
            sent.append(bytes([len(sent)]) * 100_000)
            stream.send_data(sent[-1])
            stream.wait_for_room()
        stream.send_end()

    producer = gevent.spawn(produce)
    eventually(stream.is_full)
    gevent.sleep(0.3)
    assert stream.is_full()
    assert internals.buffered_bytes(mailbox) <= MAX_BUFFERED_BYTES + WINDOW_BYTES + 100_000
    assert stream.retained_bytes() <= WINDOW_BYTES + 100_000, "the worker retains more than the window"
    assert not producer.ready()
    assert collect_body(mailbox) == b"".join(sent)
    assert len(sent) == 100


def test_reply_unknown_to_its_front_ends_the_attempt(hub: Hub, worker_side: WorkerSide):
    worker_side.start()
    caller_gone = []
    stream = worker_side.streams.open_stream(hub.channel("req_1"), on_caller_gone=lambda: caller_gone.append(True))
    stream.send_head(HEAD)
    stream.send_data(b"x")
    eventually(lambda: caller_gone)
    stream.send_data(b"y")
    stream.send_end()
    assert stream.retained_bytes() == 0


def test_unacknowledged_replies_are_retained_within_bounds(worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.reply.stream_registry.MAX_RETAINED_BYTES", 250_000)
    worker_side.start()
    for number in range(5):
        stream = worker_side.streams.open_stream(f"farm:reply:nobody:req_{number}")
        stream.send_head(HEAD)
        stream.send_data(b"x" * 100_000)
        stream.send_end()
    assert internals.ended_channels(worker_side.streams) == ["farm:reply:nobody:req_3", "farm:reply:nobody:req_4"]
    monkeypatch.setattr("workers.reply.stream_registry.RETAIN_SECONDS", 0.0)
    worker_side.streams.forget_expired()
    assert internals.ended_bytes(worker_side.streams) == 0
    assert internals.open_streams(worker_side.streams) == {}


def test_closed_window_without_acknowledgements_is_given_up(worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.reply.reply_stream.FRONT_TIMEOUT_SECONDS", 0.2)
    caller_gone = []
    stream = worker_side.streams.open_stream("farm:reply:nobody:req_1", on_caller_gone=lambda: caller_gone.append(True))
    stream.send_head(HEAD)
    stream.send_data(bytes(WINDOW_BYTES))
    stream.wait_for_room()
    assert caller_gone == [True]
    stream.abandon()
    assert internals.ended_channels(worker_side.streams) == ["farm:reply:nobody:req_1"]


def test_data_frames_are_coalesced_but_heads_and_ends_are_not(
    hub: Hub, worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workers.reply.publisher.COALESCE_SECONDS", 20.0)
    worker_side.start()
    long, short = hub.open("req_long"), hub.open("req_short")
    streams = [worker_side.streams.open_stream(hub.channel(name)) for name in ("req_long", "req_short")]
    streams[0].send_head(HEAD)
    assert [frame.kind for frame in long.get(30)] == [FrameKind.HEAD]
    assert worker_side.outbox.wait_until_idle(30)
    streams[0].send_data(b"middle")
    assert long.get(0.3) == []
    streams[1].send_head(HEAD)
    streams[1].send_data(b"all")
    streams[1].send_end()
    assert collect(short)[-1] == (FrameKind.END, b"")
    assert [frame.payload for frame in long.get(2)] == [b"middle"]


def test_retried_frames_go_before_later_ones(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    stream.send_data(b"one")
    lost = worker_side.outbox.take_batch()
    assert lost is not None
    stream.send_data(b"two")
    lost.replies.set_exception(RedisConnectionError("broken"))
    assert worker_side.outbox.take_batch() is None
    worker_side.start()
    stream.send_end()
    assert b"".join(payload for kind, payload in collect(mailbox) if kind is FrameKind.DATA) == b"onetwo"
    assert worker_side.outbox.wait_until_idle(5)
    assert internals.backlog_bytes(worker_side.outbox) == 0
    assert worker_side.counters.value("frames_replayed") == 0


def test_frames_wait_for_no_reply_to_earlier_ones(hub: Hub, worker_side: WorkerSide, redis: Redis):
    worker_side.start()
    mailbox = hub.open("req_1")
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    assert worker_side.outbox.wait_until_idle(30)
    redis.client_pause(60_000, all=False)
    for windows in (2, 4):
        worker_side.limit.record(0.005, time.monotonic() + windows * WINDOW_SECONDS)
    for number in range(3):
        stream.send_data(b"%d" % number)
        eventually(lambda: not worker_side.outbox.has_unsent)
    assert internals.count_in_flight(worker_side.pipeline) == 3
    redis.client_unpause()
    stream.send_end()
    assert collect_body(mailbox) == b"012"
    assert worker_side.outbox.wait_until_idle(30)
