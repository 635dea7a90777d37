"""The way back: frames published by a worker process arrive at the request they are for."""

from collections.abc import Iterator
from types import SimpleNamespace

import gevent
import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Failure, FrameKind, Head
from shared.protocol.reply_acks import WINDOW_BYTES, AckBatch
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect, create_dedicated_pool
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
    made = Hub(redis, create_dedicated_pool(redis_url), lambda _: set(), lambda *_: None)
    greenlets = [gevent.spawn(work) for work in (made._listen, made.ack_publisher.run, made._run_gap_checks)]
    assert made._subscribed.wait(5)
    yield made
    gevent.killall(greenlets)


class WorkerSide:
    """A worker process as far as replies go: it listens to the fronts, and publishes from `start` on."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        self.counters = Counters()
        self.outbox = Outbox()
        self.streams = StreamRegistry(self.outbox, self.counters)
        pipeline = AutoPipeline(connect(redis_url), eager=True, piggyback=self.outbox.take_batch)
        self._publisher = gevent.Greenlet(Publisher(self.outbox, pipeline).run)
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
    found = []
    while not found or found[-1][0] not in (FrameKind.END, FrameKind.FAILURE):
        frames = mailbox.get(5)
        assert frames, "the answer does not end"
        found += [(frame.kind, frame.payload) for frame in frames]
    return found


def test_frames_that_come_together_travel_together_and_in_order(redis: Redis, hub: Hub, worker_side: WorkerSide):
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


def test_answers_are_never_mixed(hub: Hub, worker_side: WorkerSide):
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


def body(mailbox: Mailbox) -> bytes:
    frames = collect(mailbox)
    assert frames[-1][0] is FrameKind.END
    return b"".join(payload for kind, payload in frames if kind is FrameKind.DATA)


def test_what_was_published_while_the_front_did_not_listen_is_sent_again(
    redis: Redis, hub: Hub, worker_side: WorkerSide
):
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
    assert body(mailbox) == b"".join(b"%d " % number for number in range(40))
    assert worker_side.counters.value("frames_replayed") > 0, "nothing had to be sent again"


def test_an_end_that_was_lost_is_asked_for(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    assert mailbox.get(5)
    stream.channel = "farm:reply:nobody:req_1"
    stream.send_data(b"lost")
    stream.send_end()
    assert worker_side.outbox.wait_until_idle(2)
    stream.channel = hub.channel("req_1")
    assert body(mailbox) == b"lost"


def test_an_answer_is_kept_until_the_front_has_confirmed_it_and_no_longer(hub: Hub, worker_side: WorkerSide):
    mailbox = hub.open("req_1")
    worker_side.start()
    stream = worker_side.streams.open_stream(hub.channel("req_1"))
    stream.send_head(HEAD)
    stream.send_data(b"x")
    stream.send_end()
    assert body(mailbox) == b"x"
    assert stream.retained_bytes() > 0
    hub.close(mailbox)
    eventually(
        lambda: not worker_side.streams._streams and not worker_side.streams._ended and not stream.retained_bytes()
    )


def test_a_slow_reader_makes_its_upstream_wait_and_what_waits_is_bounded(hub: Hub, worker_side: WorkerSide):
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
    assert mailbox._buffered <= MAX_BUFFERED_BYTES + WINDOW_BYTES + 100_000
    assert stream.retained_bytes() <= WINDOW_BYTES + 100_000, "the worker keeps more than is on its way"
    assert not producer.ready()
    assert body(mailbox) == b"".join(sent)
    assert len(sent) == 100


def test_a_front_that_does_not_know_an_answer_says_so_and_its_attempt_ends(hub: Hub, worker_side: WorkerSide):
    worker_side.start()
    left = []
    stream = worker_side.streams.open_stream(hub.channel("req_1"), on_caller_gone=lambda: left.append(True))
    stream.send_head(HEAD)
    stream.send_data(b"x")
    eventually(lambda: left)
    stream.send_data(b"y")
    stream.send_end()
    assert stream.retained_bytes() == 0


def test_answers_that_nobody_confirms_are_kept_within_bounds(worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.reply.stream_registry.MAX_RETAINED_BYTES", 250_000)
    worker_side.start()
    for number in range(5):
        stream = worker_side.streams.open_stream(f"farm:reply:nobody:req_{number}")
        stream.send_head(HEAD)
        stream.send_data(b"x" * 100_000)
        stream.send_end()
    assert list(worker_side.streams._ended) == ["farm:reply:nobody:req_3", "farm:reply:nobody:req_4"]
    monkeypatch.setattr("workers.reply.stream_registry.RETAIN_SECONDS", 0.0)
    worker_side.streams.forget_expired()
    assert (worker_side.streams._ended_bytes, worker_side.streams._streams) == (0, {})


def test_requests_whose_job_has_vanished_are_ended(redis_url: str, redis: Redis):
    hub = Hub(redis, create_dedicated_pool(redis_url), set, lambda *_: None)
    hub._subscribed.set()
    mailbox = hub.open("req_1")
    mailbox.last_frame_at -= 60
    sweeper = gevent.spawn(hub._run_sweeps)
    frames = mailbox.get(15)
    sweeper.kill()
    assert Failure.decode(frames[0].payload).code == "request_lost"


def test_that_an_answer_is_over_is_said_again_if_it_was_not_heard(
    redis: Redis, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    said: list[bytes] = []

    def publish(channel: str, message: bytes) -> None:
        said.append(message)
        if len(said) == 1:
            raise ConnectionError("away")

    monkeypatch.setattr(hub.ack_publisher, "_redis", SimpleNamespace(publish=publish))
    hub.ack_publisher.finish("req_1")
    eventually(lambda: len(said) == 2)
    assert [AckBatch.decode(one).finished for one in said] == [["req_1"], ["req_1"]]


def test_a_closed_window_of_which_no_front_says_a_word_is_given_up(
    worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workers.reply.reply_stream.FRONT_TIMEOUT_SECONDS", 0.2)
    left = []
    stream = worker_side.streams.open_stream("farm:reply:nobody:req_1", on_caller_gone=lambda: left.append(True))
    stream.send_head(HEAD)
    stream.send_data(bytes(WINDOW_BYTES))
    stream.wait_for_room()
    assert left == [True]
    stream.abandon()
    assert list(worker_side.streams._ended) == ["farm:reply:nobody:req_1"]


def test_the_middle_of_an_answer_waits_for_company_and_a_beginning_or_an_end_does_not(
    hub: Hub, worker_side: WorkerSide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("workers.reply.publisher.COALESCE_SECONDS", 20.0)
    worker_side.start()
    long, short = hub.open("req_long"), hub.open("req_short")
    streams = [worker_side.streams.open_stream(hub.channel(name)) for name in ("req_long", "req_short")]
    streams[0].send_head(HEAD)
    assert [frame.kind for frame in long.get(2)] == [FrameKind.HEAD]
    streams[0].send_data(b"middle")
    assert long.get(0.3) == []
    streams[1].send_head(HEAD)
    streams[1].send_data(b"all")
    streams[1].send_end()
    assert collect(short)[-1] == (FrameKind.END, b"")
    assert [frame.payload for frame in long.get(2)] == [b"middle"]


def test_a_redis_that_does_not_even_answer_a_ping_is_connected_to_anew(
    redis: Redis, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.reply.hub.PING_AFTER_SECONDS", 0.1)
    server = psutil.Process(redis.info("server")["process_id"])
    redis.publish(hub.channel("nobody"), b"")
    server.suspend()
    try:
        eventually(lambda: not hub.is_listening)
    finally:
        server.resume()
    eventually(lambda: hub.is_listening)


def test_what_has_to_be_sent_again_goes_before_what_came_after_it(hub: Hub, worker_side: WorkerSide):
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
    assert worker_side.outbox._backlog_bytes == 0
    assert worker_side.counters.value("frames_replayed") == 0
