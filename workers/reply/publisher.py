"""The way back: frames of all responses of a process, published in batches; what comes together goes together.

A batch whose connection broke is sent again; the listener drops numbers it has seen.
"""

import logging
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.reply_acks import AckBatch
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.multiplexer import Batch, Command
from workers.reply.reply_stream import ReplyStream

log = logging.getLogger("farm.publisher")
MARK_BEGUN_SCRIPT = Path(__file__).with_name("mark_begun.lua")
#: Bytes that may wait to be published before those who produce them have to wait.
MAX_BACKLOG_BYTES = 16 * 1024 * 1024
#: Seconds after a batch in which bytes from the middle of an answer wait for others that can travel with them.
COALESCE_SECONDS = 0.005
#: Longest pause before a broken connection is tried again, in seconds.
MAX_BACKOFF_SECONDS = 0.5
#: Seconds and bytes that answers are kept at most after their end, for a front that does not confirm them.
RETAIN_SECONDS = 30.0
MAX_RETAINED_BYTES = 64 * 1024 * 1024


class Publisher:
    """Publishes what the streams of a process have, in batches, one batch on its way at a time."""

    def __init__(self, pipeline: AutoPipeline, counters: Counters) -> None:
        #: Shared with those who end jobs and begin others: an answer's end and its job's travel together.
        self._pipeline = pipeline
        self._counters = counters
        #: Hash of the script that marks a job as begun.
        self._mark_begun = pipeline.multiplexer.load_script(MARK_BEGUN_SCRIPT)
        pipeline.multiplexer.piggyback = self._take_batch
        #: Channel -> the stream that may be asked for again.
        self._streams: dict[str, ReplyStream] = {}
        #: Channels whose stream has ended -> when, and its size.
        self._ended: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._ended_bytes = 0
        self._dirty: dict[ReplyStream, None] = {}
        self._backlog_bytes = 0
        #: Bytes of them that are not on their way yet, and what is, in its order.
        self._unsent_bytes = 0
        self._in_flight: deque[tuple[Batch | None, int]] = deque()
        self._wake = Event()
        self._urgent = Event()
        self._published_at = 0.0
        self._room = Event()
        self._room.set()
        self._idle = Event()
        self._idle.set()

    # What the streams say

    def open_stream(self, channel: str, job_key: str = "") -> ReplyStream:
        """A new response's stream, of the job with that key."""
        return ReplyStream(self, channel, job_key)

    def stream_begins(self, stream: ReplyStream) -> None:
        """The stream has its first frame: from now on the front may ask for it."""
        self._streams[stream.channel] = stream

    def notify(self, stream: ReplyStream, size: int, *, urgent: bool = False) -> None:
        """A stream has more to send; what is urgent takes everything along at once."""
        self._dirty[stream] = None
        self._backlog_bytes += size
        self._unsent_bytes += size
        if self._backlog_bytes > MAX_BACKLOG_BYTES:
            self._room.clear()
        self._idle.clear()
        self._wake.set()
        if urgent:
            self._urgent.set()

    def stream_ends(self, stream: ReplyStream) -> None:
        """The stream has its last frame; it is kept until the front has confirmed it, within bounds."""
        size = stream.retained_bytes()
        self._ended[stream.channel] = (time.monotonic(), size)
        self._ended_bytes += size
        while self._ended_bytes > MAX_RETAINED_BYTES:
            self._forget(next(iter(self._ended)))

    def is_full(self) -> bool:
        """Whether too much is on its way."""
        return not self._room.is_set()

    def wait_for_room(self) -> None:
        """Waits while too much is on its way."""
        self._room.wait()

    def drain(self, timeout: float) -> bool:
        """Waits until everything is published; False when it takes too long."""
        return bool(self._idle.wait(timeout))

    # What the fronts say

    def handle_acks(self, message: bytes) -> None:
        """Takes a front's message. Raises ValueError, KeyError or TypeError when it is none."""
        flow = AckBatch.decode(message)
        for request_id in flow.finished:
            self._forget(keys.reply(flow.front, request_id))
        for request_id, position in flow.acks.items():
            stream = self._streams.get(keys.reply(flow.front, request_id))
            if stream is not None and (again := stream.acknowledge(position)):
                self._counters.increment("frames_replayed", amount=again)
                fields = {"action": "frames_replayed", "request_id": request_id}
                log.info("%d frames are sent again", again, extra=fields)

    def forget_front(self, front: str) -> None:
        """The front is gone, and with it all who waited for these answers."""
        prefix = keys.reply(front, "")
        for channel in [one for one in self._streams if one.startswith(prefix)]:
            self._forget(channel)

    def forget_expired(self) -> None:
        """Forgets answers that ended long ago."""
        until = time.monotonic() - RETAIN_SECONDS
        while self._ended and next(iter(self._ended.values()))[0] < until:
            self._forget(next(iter(self._ended)))

    def _forget(self, channel: str) -> None:
        self._ended_bytes -= self._ended.pop(channel, (0.0, 0))[1]
        if stream := self._streams.pop(channel, None):
            stream.drop()

    # The way to Redis

    def run(self) -> None:
        """Runs for ever: 1. wait for frames, and a little for more, 2. send all of them, 3. see that they have arrived.

        A job that ends takes along what there is, because its worker has something to send to Redis at once.
        """
        self._wake.set()
        while True:
            self._wake.wait()
            self._wake.clear()
            if not self._in_flight:
                self._urgent.wait(max(0.0, self._published_at + COALESCE_SECONDS - time.monotonic()))
            self._urgent.clear()
            self._pipeline.multiplexer.flush()
            if self._in_flight:
                while self._in_flight:
                    self._await_oldest()
                self._published_at = time.monotonic()
            elif self._dirty:
                # They travel with what is asked next; or the connection has broken, and nothing is.
                gevent.sleep(COALESCE_SECONDS)
            if self._dirty:
                self._wake.set()
            else:
                self._wake.clear()

    def _take_batch(self) -> Batch | None:
        """What all streams have, on its way from now on; not while something has to be sent again, which goes first."""
        if not self._dirty or any(question and question.has_failed for question, _ in self._in_flight):
            return None
        streams, self._dirty = list(self._dirty), {}
        size, self._unsent_bytes = self._unsent_bytes, 0
        commands: list[Command] = []
        for stream in streams:
            if stream.take_mark():
                commands.append(("EVALSHA", self._mark_begun, "1", stream.job_key))
            if message := stream.take_unsent():
                commands.append(("PUBLISH", stream.channel, message))
        question = Batch(commands, is_piggyback=True) if commands else None
        self._in_flight.append((question, size))
        self._wake.set()
        return question

    def _await_oldest(self) -> None:
        """Returns when Redis has taken what was sent first."""
        question, size = self._in_flight[0]
        try:
            if question:
                self._check_replies(question)
        finally:
            self._in_flight.popleft()
            self._backlog_bytes -= size
            if self._backlog_bytes <= MAX_BACKLOG_BYTES:
                self._room.set()
            if not self._dirty and not self._in_flight:
                self._idle.set()

    def _check_replies(self, question: Batch) -> None:
        """Sends again what has not arrived; one that takes no writes publishes all the same, and answers go on."""
        try:
            answers = self._pipeline.wait_for(question)
        except (RedisError, OSError) as error:
            answers = self._retry(question.commands, error)
        for command, answer in zip(question.commands, answers, strict=True):
            if isinstance(answer, Exception):
                log.warning("%s was refused: %s", command[0], answer, extra={"action": "redis_refused"})

    def _retry(self, commands: list[Command], error: Exception) -> list[Any]:
        """Asks again until there are answers."""
        pause = 0.05
        while True:
            log.warning("frames can't be published: %s", error, extra={"action": "publish_retried"})
            gevent.sleep(pause)
            pause = min(2 * pause, MAX_BACKOFF_SECONDS)
            try:
                return self._pipeline.execute_all(commands)
            except (RedisError, OSError) as again:
                error = again
