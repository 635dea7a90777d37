"""The way back into the front: one pub/sub connection per web process, which hands each frame to the request it is for.

One pattern is subscribed once, so a request opens its channel without a round trip and before it is enqueued.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import Event
from gevent.queue import Empty, SimpleQueue
from redis import Redis
from redis.connection import ConnectionPool
from redis.exceptions import RedisError

from shared import keys
from shared.errors import ApiError
from shared.messages import OUT_OF_BAND, Failure, Frame, FrameKind, decode_frames
from shared.persistence import keep_running

log = logging.getLogger("farm.hub")
#: Seconds a new request waits for the subscription, should Redis be away.
PATIENCE = 5.0
#: Longest pause before a lost Redis is tried again, in seconds.
LONGEST_PAUSE = 1.0
#: Seconds between two looks for requests whose job has vanished.
SWEEP_EVERY = 2.0
#: Seconds that a web process counts as alive after its last sign of life.
ALIVE = 10.0

LOST = Failure(502, "request_lost", "the request was removed from the queue, or its worker is gone", "server_error", 0)
GAP = Failure(502, "reply_gap", "a part of the answer was lost on its way", "server_error", 0)


class Mailbox:
    """The frames of one request, in order and without a gap."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._frames: SimpleQueue[Frame] = SimpleQueue()
        self._expected = 0
        self._tag: int | None = None
        #: When the last frame came, or the request began; seconds of the monotonic clock.
        self.last_sign = time.monotonic()
        #: Whether the last frame has come.
        self.ended = False
        #: Whether this side has ended it, so that the worker may still be at it.
        self.ended_here = False

    def put(self, frame: Frame) -> None:
        """Takes a frame: drops one that was there before or is another attempt's, and fails when one is missing."""
        if self.ended or (frame.number != OUT_OF_BAND and not self._is_next(frame)):
            return
        self.last_sign = time.monotonic()
        if frame.number != OUT_OF_BAND and frame.number > self._expected:
            frame = Frame(FrameKind.FAILURE, OUT_OF_BAND, GAP.encode())
            self.ended_here = True
        self._expected += 1
        self.ended = frame.kind in (FrameKind.END, FrameKind.FAILURE)
        self._frames.put(frame)

    def _is_next(self, frame: Frame) -> bool:
        if self._tag is None:
            self._tag = frame.tag
        return frame.tag == self._tag and frame.number >= self._expected

    def fail(self, failure: Failure) -> None:
        """Ends the answer from this side."""
        self.ended_here = True
        self.put(Frame(FrameKind.FAILURE, OUT_OF_BAND, failure.encode()))

    def leave(self) -> None:
        """The caller has gone: whoever waits for a frame wakes up."""
        self.fail(Failure(499, "client_gone", "the caller has gone", "server_error", 0))

    def get(self, timeout: float) -> list[Frame]:
        """The frames that are there, at least one; empty when none came in time."""
        try:
            frames = [self._frames.get(timeout=max(0.0, timeout))]
        except Empty:
            return []
        while not self._frames.empty():
            frames.append(self._frames.get())
        return frames


class Hub:
    """All mailboxes of a web process."""

    def __init__(self, connections: ConnectionPool, vanished: Callable[[Iterable[str]], set[str]]) -> None:
        self.process_id = secrets.token_hex(6)
        self._connections = connections
        self._vanished = vanished
        self._mailboxes: dict[bytes, Mailbox] = {}
        self._subscribed = Event()
        self._suspects: set[str] = set()

    def sign(self, redis: Redis) -> None:
        """Tells the workers that this process lives, so that they work for its requests."""
        redis.set(keys.front(self.process_id), 1, px=int(ALIVE * 1000))

    def start(self) -> None:
        """Begins to listen and to sweep."""
        gevent.spawn(keep_running, self._listen)
        gevent.spawn(keep_running, self._sweep)

    def channel(self, request_id: str) -> str:
        """The reply channel of a request of this process."""
        return keys.reply(self.process_id, request_id)

    def open(self, request_id: str) -> Mailbox:
        """A mailbox that will miss nothing. Raises ApiError when Redis is away."""
        if not self._subscribed.wait(PATIENCE):
            raise ApiError(503, "store_unavailable", "the farm's Redis does not answer", "server_error")
        mailbox = Mailbox(request_id)
        self._mailboxes[self.channel(request_id).encode()] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """The request is over; later frames are dropped."""
        self._mailboxes.pop(self.channel(mailbox.request_id).encode(), None)

    def __len__(self) -> int:
        return len(self._mailboxes)

    def _listen(self) -> None:
        """Runs for ever: 1. connect and subscribe, 2. hand out frames, 3. when the connection breaks, begin again."""
        pause = 0.05
        while True:
            connection = self._connections.make_connection()
            try:
                connection.send_command("PSUBSCRIBE", self.channel("*"))
                connection.read_response(timeout=PATIENCE)
                self._subscribed.set()
                pause = 0.05
                while True:
                    self._hand_out(connection.read_response(timeout=None))
            except (RedisError, OSError) as error:
                log.warning("replies can't be heard: %s", error, extra={"action": "redis_lost"})
            finally:
                self._subscribed.clear()
                connection.disconnect()
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _hand_out(self, message: Any) -> None:
        """A `pmessage`: its kind, the pattern, the channel and the frames."""
        mailbox = self._mailboxes.get(message[2])
        if mailbox is None:
            return
        try:
            for frame in decode_frames(message[3]):
                mailbox.put(frame)
        except ValueError as error:
            log.warning("frame not understood: %s", error, extra={"action": "bad_frame"})

    def _sweep(self) -> None:
        """Runs for ever: ends requests that have no job in Redis at two looks in a row (I7)."""
        while True:
            gevent.sleep(SWEEP_EVERY)
            quiet_since = time.monotonic() - SWEEP_EVERY
            quiet = {m.request_id: m for m in self._mailboxes.values() if not m.ended and m.last_sign < quiet_since}
            try:
                gone = self._vanished(quiet) if quiet else set()
            except (RedisError, OSError) as error:
                log.warning("can't look for lost requests: %s", error, extra={"action": "redis_lost"})
                continue
            for request_id in gone & self._suspects:
                quiet[request_id].fail(LOST)
            self._suspects = gone
