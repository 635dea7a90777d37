"""Frames of all replies of a worker process that wait to be published."""

from collections import deque
from pathlib import Path

from gevent.event import Event

from shared.protocol.relay_queue import BODIES_LUA
from shared.redis_connection.client import read_script
from shared.redis_connection.multiplexer import Batch, Command, hash_script
from workers.reply.reply_stream import ReplyStream

MARK_BEGUN_SCRIPT = (BODIES_LUA, Path(__file__).with_name("mark_begun.lua"))
#: Bytes that may be unsent or in flight before producers have to wait.
MAX_BACKLOG_BYTES = 16 * 1024 * 1024


class Outbox:
    """Collects the unsent frames of all streams and hands them out in batches, which the publisher sees through."""

    def __init__(self) -> None:
        self._mark_begun_sha = hash_script(read_script(*MARK_BEGUN_SCRIPT))
        #: Streams with unsent frames, in the order in which they reported them.
        self._dirty: dict[ReplyStream, None] = {}
        self._backlog_bytes = 0
        self._unsent_bytes = 0
        #: Batches that Redis has not replied to yet, oldest first, and the bytes that each stands for.
        self.in_flight: deque[tuple[Batch | None, int]] = deque()
        #: Set when there is something to publish or to see through, and when it may not wait for more to join it.
        self.has_work = Event()
        self.is_urgent = Event()
        self._room = Event()
        self._room.set()
        self._idle = Event()
        self._idle.set()

    @property
    def has_unsent(self) -> bool:
        return bool(self._dirty)

    def notify(self, stream: ReplyStream, size: int, *, urgent: bool = False) -> None:
        """A stream has `size` more bytes to send; urgent ones take everything unsent along at once."""
        self._dirty[stream] = None
        self._backlog_bytes += size
        self._unsent_bytes += size
        if self._backlog_bytes > MAX_BACKLOG_BYTES:
            self._room.clear()
        self._idle.clear()
        self.has_work.set()
        if urgent:
            self.is_urgent.set()

    def is_full(self) -> bool:
        """Whether the backlog is above its bound."""
        return not self._room.is_set()

    def wait_for_room(self) -> None:
        self._room.wait()

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits until everything is published; False when that takes longer than `timeout` seconds."""
        return bool(self._idle.wait(timeout))

    def take_batch(self) -> Batch | None:
        """Everything unsent, as one batch that is in flight until it is complete; None when there is nothing to send.

        While a failed batch waits to be retried nothing is handed out, so that frames stay in order.
        """
        if not self._dirty or any(batch and batch.has_failed for batch, _ in self.in_flight):
            return None
        streams, self._dirty = list(self._dirty), {}
        size, self._unsent_bytes = self._unsent_bytes, 0
        commands: list[Command] = []
        for stream in streams:
            if stream.take_mark():
                request_id = stream.channel.rpartition(":")[2]
                commands.append(("EVALSHA", self._mark_begun_sha, "1", stream.job_key, request_id))
            if message := stream.take_unsent():
                commands.append(("PUBLISH", stream.channel, message))
        batch = Batch(commands, is_piggyback=True) if commands else None
        self.in_flight.append((batch, size))
        self.has_work.set()
        return batch

    def wake_when_complete(self, batch: Batch) -> None:
        """Sets `has_work` when the batch's replies have come, or will not."""
        batch.replies.rawlink(lambda _: self.has_work.set())

    def complete_oldest(self) -> None:
        """Removes the oldest batch in flight and its bytes from the backlog."""
        _, size = self.in_flight.popleft()
        self._backlog_bytes -= size
        if self._backlog_bytes <= MAX_BACKLOG_BYTES:
            self._room.set()
        if not self._dirty and not self.in_flight:
            self._idle.set()
