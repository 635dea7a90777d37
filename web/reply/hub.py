"""The way back into the front: one pub/sub connection per web process, which hands each frame to the request it is for.

One pattern is subscribed once, so a request opens its channel without a round trip and before it is enqueued. When the
connection was lost, every open mailbox asks its worker for what it has missed.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import Event
from redis import Redis
from redis.connection import ConnectionPool
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared import keys
from shared.background import keep_running
from shared.errors import ApiError
from shared.protocol.messages import Failure, decode_frames
from web.reply.ack_publisher import Speaker
from web.reply.mailbox import Held, Mailbox

log = logging.getLogger("farm.hub")
#: Seconds a new request waits for the subscription, should Redis be away.
PATIENCE = 10.0
#: Longest pause before a lost Redis is tried again, in seconds.
LONGEST_PAUSE = 0.5
#: Seconds of silence after which the connection is tried with a ping, and after as many more given up.
SILENCE = 5.0
#: Seconds between two looks for answers that have lost something.
DOUBT_EVERY = 0.5
#: Seconds after a lost connection in which even a request without any frame asks for what it may have missed.
UNSURE = 10.0
#: Seconds that a missing frame may take to come, before the answer ends with an error.
REPAIR = 10.0
#: Seconds between two looks for requests whose job has vanished, and how long it must be gone.
SWEEP_EVERY = 2.0
VANISHED = 5.0

LOST = Failure(502, "request_lost", "the request was removed from the queue, or its worker is gone", "server_error", 0)
GAP = Failure(502, "reply_gap", "a part of the answer was lost on its way", "server_error", 0)


def nobody(pool: str, request_id: str) -> None:
    """Cancels nothing: a hub that only listens."""


class Hub:
    """All mailboxes of a web process."""

    def __init__(
        self, redis: Redis, connections: ConnectionPool, vanished: Callable[[Iterable[str]], set[str]]
    ) -> None:
        self.process_id = secrets.token_hex(6)
        self._redis = redis
        self._has_left = False
        #: Requests whose job could not be cancelled, because Redis was away: id -> pool.
        self.abandoned: dict[str, str] = {}
        #: Cancels a job: pool, request id.
        self.cancel: Callable[[str, str], Any] = nobody
        self._connections = connections
        self._vanished = vanished
        self._mailboxes: dict[bytes, Mailbox] = {}
        self._held = Held()
        self._subscribed = Event()
        self._subscribed_at = 0.0
        self._suspects: dict[str, float] = {}
        self.speaker = Speaker(redis, self.process_id)

    @property
    def is_listening(self) -> bool:
        """Whether replies can be heard now."""
        return bool(self._subscribed.is_set())

    def sign(self) -> None:
        """Tells the workers that this process lives: it is in their list, and listens on its channel."""
        if self._has_left:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.FRONTS, {self.process_id: time.time()})
            pipe.delete(keys.gone(self.process_id))
            pipe.execute()

    def leave(self) -> None:
        """This process ends in good order: nobody has to look whether it lives."""
        self._has_left = True
        self._redis.zrem(keys.FRONTS, self.process_id)

    def start(self) -> None:
        """Begins to listen, to speak and to look after the mailboxes."""
        for work in (self._listen, self.speaker.run, self._doubt, self._sweep):
            gevent.spawn(keep_running, work)

    def channel(self, request_id: str) -> str:
        """The reply channel of a request of this process."""
        return keys.reply(self.process_id, request_id)

    def open(self, request_id: str) -> Mailbox:
        """A mailbox that will miss nothing. Raises ApiError when Redis is away."""
        if not self._subscribed.wait(PATIENCE):
            raise ApiError(503, "store_unavailable", "the farm's Redis does not answer", "server_error")
        mailbox = Mailbox(request_id, self._held, self.speaker.at)
        self._mailboxes[self.channel(request_id).encode()] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """The request is over; later frames are dropped."""
        if self._mailboxes.pop(self.channel(mailbox.request_id).encode(), None) is None:
            return
        if mailbox.begun:
            self.speaker.over(mailbox.request_id)
        mailbox.close()

    def __len__(self) -> int:
        return len(self._mailboxes)

    # Listening

    def _listen(self) -> None:
        """Runs for ever: 1. connect and subscribe, 2. hand out frames, 3. when the connection breaks, begin again."""
        pause = 0.05
        while True:
            connection = self._connections.make_connection()
            try:
                self._subscribe(connection)
                pause = 0.05
                self._hear(connection)
            except (RedisError, OSError) as error:
                log.warning("replies can't be heard: %s", error, extra={"action": "redis_lost"})
            finally:
                self._subscribed.clear()
                connection.disconnect()
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _subscribe(self, connection: Any) -> None:
        for command in (("SUBSCRIBE", keys.front(self.process_id)), ("PSUBSCRIBE", self.channel("*"))):
            connection.send_command(*command)
            connection.read_response(timeout=PATIENCE)
        self.sign()
        self._subscribed_at = time.monotonic()
        self._subscribed.set()
        for mailbox in self._mailboxes.values():
            mailbox.doubt_at_once()
        self._look_for_gaps()

    def _hear(self, connection: Any) -> None:
        """Hands out messages until the connection breaks, or is silent even when pinged."""
        pinged = False
        while True:
            try:
                message = connection.read_response(timeout=SILENCE, disconnect_on_error=False)
            except RedisTimeoutError:
                if pinged:
                    raise
                connection.send_command("PING")
                pinged = True
                continue
            pinged = False
            self._hand_out(message)

    def _hand_out(self, message: Any) -> None:
        """A `pmessage`: its kind, the pattern, the channel and the frames; pongs come here too."""
        if message[0] != b"pmessage":
            return
        mailbox = self._mailboxes.get(message[2])
        if mailbox is None:
            self.speaker.over(message[2].decode().rpartition(":")[2])
            return
        try:
            for frame in decode_frames(message[3]):
                mailbox.put(frame)
        except ValueError as error:
            log.warning("frame not understood: %s", error, extra={"action": "bad_frame"})

    # Looking after the mailboxes

    def _doubt(self) -> None:
        """Runs for ever."""
        while True:
            gevent.sleep(DOUBT_EVERY)
            self._look_for_gaps()

    def _look_for_gaps(self) -> None:
        """Asks for what may have been lost; ends answers whose gap was not closed in time (I7)."""
        now = time.monotonic()
        unsure = now - self._subscribed_at < UNSURE
        for mailbox in list(self._mailboxes.values()):
            if mailbox.ended:
                continue
            if mailbox.gap_since and now - mailbox.gap_since > REPAIR:
                mailbox.fail(GAP)
            elif mailbox.begun or unsure:
                mailbox.doubt()

    def _cancel_abandoned(self) -> None:
        """Nobody waits for these any more; Redis may have taken them in all the same."""
        try:
            while self.abandoned:
                request_id, pool = next(iter(self.abandoned.items()))
                self.cancel(pool, request_id)
                del self.abandoned[request_id]
        except (RedisError, OSError) as error:
            log.warning("jobs can't be cancelled: %s", error, extra={"action": "redis_lost"})

    def _sweep(self) -> None:
        """Runs for ever: ends requests whose job has been gone for a while, or whose caller reads no more (I7)."""
        while True:
            gevent.sleep(SWEEP_EVERY)
            for mailbox in list(self._mailboxes.values()):
                if time.time() > mailbox.overdue_at:
                    mailbox.on_overdue()
            self._cancel_abandoned()
            quiet_since = time.monotonic() - SWEEP_EVERY
            quiet = {m.request_id: m for m in self._mailboxes.values() if not m.ended and m.last_sign < quiet_since}
            try:
                gone = self._vanished(quiet) if quiet else set()
            except (RedisError, OSError) as error:
                log.warning("can't look for lost requests: %s", error, extra={"action": "redis_lost"})
                self._suspects.clear()
                continue
            now = time.monotonic()
            self._suspects = {one: self._suspects.get(one, now) for one in gone}
            for request_id in [one for one, since in self._suspects.items() if now - since >= VANISHED]:
                quiet[request_id].lost = not quiet[request_id].begun
                quiet[request_id].fail(LOST)
