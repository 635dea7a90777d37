"""Receives all reply frames of a front over one pub/sub connection and delivers them to mailboxes.

A single pattern is subscribed once, so a request opens its channel without a round trip, before it is enqueued. After
a lost connection every open mailbox asks its worker to retransmit what it missed.
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

from shared import clock, keys
from shared.background import keep_running
from shared.errors import ApiError
from shared.protocol.messages import Failure, decode_frames
from web.reply.ack_publisher import AckPublisher
from web.reply.mailbox import BufferedBytes, Mailbox

log = logging.getLogger("farm.hub")
#: Seconds that a new request waits for the subscription, should Redis be down.
SUBSCRIBE_TIMEOUT_SECONDS = 10.0
#: Longest backoff in seconds before reconnecting.
MAX_BACKOFF_SECONDS = 0.5
#: Seconds of silence before a ping, and again before the connection is given up.
PING_AFTER_SECONDS = 5.0
#: Seconds between two checks for lost frames.
GAP_CHECK_INTERVAL_SECONDS = 0.5
#: Seconds after a reconnect in which even requests without any frame ask for a retransmission.
PROBE_AFTER_RECONNECT_SECONDS = 10.0
#: Seconds that a gap may last before the reply fails.
GAP_TIMEOUT_SECONDS = 10.0
#: Seconds between two searches for requests whose job has vanished, and seconds it must have been gone.
SWEEP_INTERVAL_SECONDS = 2.0
VANISHED_AFTER_SECONDS = 5.0

REQUEST_LOST = Failure(
    502, "request_lost", "the request was removed from the queue, or its worker died", "server_error", 0
)
REPLY_GAP = Failure(502, "reply_gap", "a part of the reply was lost in transit", "server_error", 0)


class Hub:
    """All mailboxes of one front."""

    def __init__(
        self,
        redis: Redis,
        connections: ConnectionPool,
        find_vanished: Callable[[Iterable[str]], set[str]],
        cancel: Callable[[str, str], object],
    ) -> None:
        """`find_vanished` returns the request ids whose job is gone; `cancel(pool, request_id)` cancels a job."""
        self.front_id = secrets.token_hex(6)
        self._redis = redis
        self._has_left = False
        #: Requests whose job could not be cancelled because Redis was down: request id -> pool.
        self.abandoned: dict[str, str] = {}
        self._cancel = cancel
        self._connections = connections
        self._find_vanished = find_vanished
        self._mailboxes: dict[bytes, Mailbox] = {}
        self._buffered = BufferedBytes()
        self._subscribed = Event()
        self._subscribed_at = 0.0
        self._vanished_since: dict[str, float] = {}
        self.ack_publisher = AckPublisher(redis, self.front_id)
        #: Called with what another front tells this one.
        self.on_message: Callable[[bytes], None] = lambda _: None

    @property
    def is_listening(self) -> bool:
        return bool(self._subscribed.is_set())

    def send_heartbeat(self) -> None:
        """Registers this front and its heartbeat, and revokes a worker's finding that the front is gone."""
        if self._has_left:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.FRONTS, {self.front_id: clock.now()})
            pipe.delete(keys.front_gone(self.front_id))
            pipe.time()
            asked_at = time.time()
            clock.compare(pipe.execute()[-1], asked_at)

    def leave(self) -> None:
        """Deregisters the front, so that workers don't check whether it is alive."""
        self._has_left = True
        self._redis.zrem(keys.FRONTS, self.front_id)

    def start(self) -> None:
        for loop in (self._listen, self.ack_publisher.run, self._run_gap_checks, self._run_sweeps):
            gevent.spawn(keep_running, loop)

    def channel(self, request_id: str) -> str:
        return keys.reply_channel(self.front_id, request_id)

    def open(
        self, request_id: str, overdue_at: float = float("inf"), on_overdue: Callable[[], None] = lambda: None
    ) -> Mailbox:
        """Opens a mailbox; its channel is already subscribed. Raises ApiError when Redis is down.

        `on_overdue` is called when the mailbox is still open at `overdue_at`, in seconds since the epoch.
        """
        if not self._subscribed.wait(SUBSCRIBE_TIMEOUT_SECONDS):
            raise ApiError(503, "store_unavailable", "the farm's Redis does not respond", "server_error")
        mailbox = Mailbox(request_id, self._buffered, self.ack_publisher.acknowledge, overdue_at, on_overdue)
        self._mailboxes[self.channel(request_id).encode()] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """Idempotent; later frames are dropped."""
        if self._mailboxes.pop(self.channel(mailbox.request_id).encode(), None) is None:
            return
        if mailbox.has_started:
            self.ack_publisher.finish(mailbox.request_id)
        mailbox.close()

    def wake_all(self) -> None:
        """Wakes all greenlets that wait for a frame."""
        for mailbox in list(self._mailboxes.values()):
            mailbox.wake()

    def fail_all(self, failure: Failure) -> None:
        """Ends all replies that have not ended."""
        for mailbox in list(self._mailboxes.values()):
            mailbox.fail(failure)

    def __len__(self) -> int:
        return len(self._mailboxes)

    def _listen(self) -> None:
        backoff = 0.05
        while True:
            connection = self._connections.make_connection()
            try:
                self._subscribe(connection)
                backoff = 0.05
                self._receive(connection)
            except RedisError as error:
                log.warning("can't receive replies: %s", error, extra={"action": "redis_lost"})
            finally:
                self._subscribed.clear()
                connection.disconnect()
            gevent.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    def _subscribe(self, connection: Any) -> None:
        for command in (("SUBSCRIBE", keys.front_channel(self.front_id)), ("PSUBSCRIBE", self.channel("*"))):
            connection.send_command(*command)
            connection.read_response(timeout=SUBSCRIBE_TIMEOUT_SECONDS)
        self.send_heartbeat()
        self._subscribed_at = time.monotonic()
        self._subscribed.set()
        for mailbox in self._mailboxes.values():
            mailbox.probe_soon()
        self._check_gaps()

    def _receive(self, connection: Any) -> None:
        """Delivers messages until the connection breaks, or stays silent after a ping."""
        is_pinged = False
        while True:
            try:
                message = connection.read_response(timeout=PING_AFTER_SECONDS, disconnect_on_error=False)
            except RedisTimeoutError:
                if is_pinged:
                    raise
                connection.send_command("PING")
                is_pinged = True
                continue
            is_pinged = False
            self._deliver(message)

    def _deliver(self, message: Any) -> None:
        """Delivers a `pmessage` (type, pattern, channel, frames), or another front's `message`; ignores pongs.

        A frame for an unknown mailbox is acknowledged as finished, so that its worker stops sending.
        """
        if message[0] == b"message":
            self.on_message(message[2])
        if message[0] != b"pmessage":
            return
        mailbox = self._mailboxes.get(message[2])
        if mailbox is None:
            self.ack_publisher.finish(message[2].decode().rpartition(":")[2])
            return
        try:
            for frame in decode_frames(message[3]):
                mailbox.put(frame)
        except ValueError as error:
            log.warning("invalid frame: %s", error, extra={"action": "bad_frame"})

    def _run_gap_checks(self) -> None:
        while True:
            gevent.sleep(GAP_CHECK_INTERVAL_SECONDS)
            self._check_gaps()

    def _check_gaps(self) -> None:
        """Asks for retransmission of what may be lost; fails replies whose gap stays open too long (I7)."""
        now = time.monotonic()
        has_reconnected = now - self._subscribed_at < PROBE_AFTER_RECONNECT_SECONDS
        for mailbox in list(self._mailboxes.values()):
            if mailbox.ended:
                continue
            if mailbox.gap_since and now - mailbox.gap_since > GAP_TIMEOUT_SECONDS:
                mailbox.fail(REPLY_GAP)
            elif mailbox.has_started or has_reconnected:
                mailbox.probe_if_silent()

    def _cancel_abandoned(self) -> None:
        """Cancels jobs that Redis may have accepted although the front saw an error."""
        try:
            while self.abandoned:
                request_id, pool = next(iter(self.abandoned.items()))
                self._cancel(pool, request_id)
                del self.abandoned[request_id]
        except RedisError as error:
            log.warning("can't cancel abandoned jobs: %s", error, extra={"action": "redis_lost"})

    def _run_sweeps(self) -> None:
        """Ends requests whose job has been gone for a while, or whose caller has stopped reading (I7)."""
        while True:
            gevent.sleep(SWEEP_INTERVAL_SECONDS)
            for mailbox in list(self._mailboxes.values()):
                if clock.now() > mailbox.overdue_at:
                    mailbox.on_overdue()
            self._cancel_abandoned()
            quiet_since = time.monotonic() - SWEEP_INTERVAL_SECONDS
            quiet = {
                mailbox.request_id: mailbox
                for mailbox in self._mailboxes.values()
                if mailbox.is_enqueued and not mailbox.ended and mailbox.last_frame_at < quiet_since
            }
            try:
                vanished = self._find_vanished(quiet) if quiet else set()
            except RedisError as error:
                log.warning("can't look for vanished jobs: %s", error, extra={"action": "redis_lost"})
                self._vanished_since.clear()
                continue
            now = time.monotonic()
            self._vanished_since = {request_id: self._vanished_since.get(request_id, now) for request_id in vanished}
            for request_id in [
                suspect for suspect, since in self._vanished_since.items() if now - since >= VANISHED_AFTER_SECONDS
            ]:
                quiet[request_id].is_lost = not quiet[request_id].has_started
                quiet[request_id].fail(REQUEST_LOST)
