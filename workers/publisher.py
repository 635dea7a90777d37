"""The way back: frames of all responses of a process, published over one connection; what comes together goes together.

Each response has its channel and numbers its frames. A batch whose connection broke is sent again; the listener drops
numbers it has seen.
"""

import logging
import random
import time
from hashlib import sha1
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from redis.connection import ConnectionPool
from redis.exceptions import RedisError

from shared.messages import Failure, Frame, FrameKind, Head

log = logging.getLogger("farm.publisher")
MARK_BEGUN = (Path(__file__).parent / "lua" / "mark_begun.lua").read_text()
#: Bytes that may wait to be published before those who produce them have to wait.
BACKLOG = 16 * 1024 * 1024
#: Longest pause before a broken connection is tried again, in seconds.
LONGEST_PAUSE = 1.0


class ReplyStream:
    """The frames of one response."""

    def __init__(self, publisher: "Publisher", channel: str, job_key: str) -> None:
        self._publisher = publisher
        self.channel = channel
        self._job_key = job_key
        #: Whether a head is on its way whose end is not, so that the job has to be marked.
        self._to_mark = False
        self._tag = random.getrandbits(32)
        self._number = 0
        self._waiting: list[bytes] = []
        self._data: list[bytes] = []
        self._unheard_since = 0.0

    def head(self, head: Head) -> None:
        """The status; goes out together with what follows at once."""
        self._to_mark = True
        self._put(FrameKind.HEAD, head.encode())

    def data(self, data: bytes) -> None:
        """Bytes of the body; waits while too much is on its way."""
        self._publisher.wait_for_room()
        self._data.append(data)
        self._publisher.add(self, len(data))

    def end(self) -> None:
        """The body is whole."""
        self._to_mark = False
        self._put(FrameKind.END, b"")

    def fail(self, failure: Failure) -> None:
        """There is no answer, or no more of it."""
        self._put(FrameKind.FAILURE, failure.encode())

    def _put(self, kind: FrameKind, payload: bytes) -> None:
        self._gather()
        self._waiting.append(Frame(kind, self._next_number(), payload, self._tag).encode())
        self._publisher.add(self, len(payload))

    def _gather(self) -> None:
        """Bytes that came together become one frame."""
        if self._data:
            payload = self._data[0] if len(self._data) == 1 else b"".join(self._data)
            self._data.clear()
            self._waiting.append(Frame(FrameKind.DATA, self._next_number(), payload, self._tag).encode())

    def _next_number(self) -> int:
        number = self._number
        self._number += 1
        return number

    def take(self) -> bytes:
        """Everything that waits, as one message."""
        self._gather()
        message = b"".join(self._waiting)
        self._waiting.clear()
        return message

    def mark(self) -> tuple[str, ...]:
        """The command that marks the job as begun, once, if the answer goes on after this message; else empty.

        Without it a worker that finds the job orphaned would try it again (I6).
        """
        to_mark, self._to_mark = self._to_mark, False
        return ("EVALSHA", self._publisher.mark_begun, "1", self._job_key) if to_mark else ()

    def heard_by(self, listeners: int) -> None:
        """How many received the last message."""
        if listeners:
            self._unheard_since = 0.0
        elif not self._unheard_since:
            self._unheard_since = time.monotonic()

    def unheard(self) -> float:
        """Seconds that nobody has listened."""
        return time.monotonic() - self._unheard_since if self._unheard_since else 0.0


class Publisher:
    """Publishes what the streams of a process have, in batches, one batch on its way at a time."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connections = connections
        #: Hash of the script that marks a job as begun; known once the connection is up.
        self.mark_begun = sha1(MARK_BEGUN.encode(), usedforsecurity=False).hexdigest()
        self._dirty: dict[ReplyStream, None] = {}
        self._bytes = 0
        self._wake = Event()
        self._room = Event()
        self._room.set()
        self._idle = Event()
        self._idle.set()

    def stream(self, channel: str, job_key: str = "") -> ReplyStream:
        """A new response's stream, of the job with that key."""
        return ReplyStream(self, channel, job_key)

    def add(self, stream: ReplyStream, size: int) -> None:
        """A stream has more to send."""
        self._dirty[stream] = None
        self._bytes += size
        if self._bytes > BACKLOG:
            self._room.clear()
        self._idle.clear()
        self._wake.set()

    def wait_for_room(self) -> None:
        """Waits while too much is on its way."""
        if not self._room.is_set():
            self._room.wait()

    def drain(self, timeout: float) -> bool:
        """Waits until everything is published; False when it takes too long."""
        return bool(self._idle.wait(timeout))

    def run(self) -> None:
        """Runs for ever: 1. wait for frames, 2. take all of them, 3. publish in one go, 4. see who listened."""
        connection = self._connections.make_connection()
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                self._publish(connection)
        finally:
            connection.disconnect()

    def _publish(self, connection: Any) -> None:
        """Sends what all streams have."""
        streams, self._dirty = list(self._dirty), {}
        sent = self._bytes
        commands: list[tuple[Any, ...]] = []
        heard: list[ReplyStream | None] = []
        for stream in streams:
            if mark := stream.mark():
                commands.append(mark)
                heard.append(None)
            if message := stream.take():
                commands.append(("PUBLISH", stream.channel, message))
                heard.append(stream)
        self._send(connection, commands, heard)
        self._bytes -= sent
        if self._bytes <= BACKLOG:
            self._room.set()
        if not self._dirty:
            self._idle.set()

    def _send(self, connection: Any, commands: list[tuple[Any, ...]], heard: list[ReplyStream | None]) -> None:
        """Sends until Redis has taken all; the script is loaded with each new connection."""
        pause = 0.05
        while commands:
            try:
                if not connection.is_connected:
                    connection.connect()
                    connection.send_command("SCRIPT", "LOAD", MARK_BEGUN)
                    connection.read_response()
                connection.send_packed_command(connection.pack_commands(commands))
                for stream in heard:
                    listeners = connection.read_response()
                    if stream is not None:
                        stream.heard_by(listeners)
                return
            except (RedisError, OSError) as error:
                connection.disconnect()
                log.warning("frames can't be published: %s", error, extra={"action": "publish_retried"})
                gevent.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
