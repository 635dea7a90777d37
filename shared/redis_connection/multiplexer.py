"""Multiplexes the commands of many greenlets over one pipelined connection to Redis."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import sha1
from pathlib import Path
from typing import Any

import gevent
import hiredis
from gevent.event import AsyncResult, Event
from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared.redis_connection.client import read_script
from shared.redis_connection.in_flight_limit import InFlightLimit

log = logging.getLogger("farm.redis_line")
#: Seconds without an expected reply after which the connection counts as broken.
REPLY_TIMEOUT_SECONDS = 10.0
#: Bytes per send; each send has the socket timeout for itself.
SEND_CHUNK_BYTES = 256 * 1024
Command = tuple[Any, ...]


class Batch:
    """Commands that are sent together, with their future replies, including errors of single commands."""

    def __init__(self, commands: list[Command], *, is_piggyback: bool = False) -> None:
        """A piggyback batch is sent ahead of others and does not count as in flight."""
        self.commands = commands
        self.is_piggyback = is_piggyback
        self.packed = b"".join([hiredis.pack_command(command) for command in commands])
        self.replies: AsyncResult[list[Any]] = AsyncResult()
        #: By the monotonic clock.
        self.sent_at = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether its replies have come, or will not."""
        return bool(self.replies.ready())

    @property
    def has_failed(self) -> bool:
        """Whether no replies will come."""
        return bool(self.replies.ready()) and not self.replies.successful()


class Multiplexer:
    """One connection, opened on first use, shared by many greenlets.

    Batches are sent without waiting for the replies of earlier ones. Replies come in the order of the commands.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        *,
        limit: InFlightLimit | None = None,
        piggyback: Callable[[], Batch | None] | None = None,
    ) -> None:
        """`limit`: how many batches may await their replies at a time; None for any number.

        `piggyback` is called before each send; the batch it returns, if any, is sent ahead of the others. It waits for
        none of their replies, unless Redis is so near that it is sent with the next batch just as soon.
        """
        self._connection: Any = connections.make_connection()
        # Set permanently: redis-py would set a timeout before each read and restore it afterwards.
        self._connection.socket_timeout = REPLY_TIMEOUT_SECONDS
        self._scripts: list[str] = []
        self._outgoing: list[Batch] = []
        self._awaiting_reply: deque[Batch] = deque()
        self._is_sending = False
        #: Incremented when the connection breaks.
        self._generation = 0
        self._sent = Event()
        self._reader: gevent.Greenlet | None = None
        #: Batches that await their replies, not counting piggybacked ones; counted only where they are limited.
        self._in_flight = 0
        self.limit = limit
        self._piggyback = piggyback

    def load_script(self, *files: Path) -> str:
        """Registers a Lua script to be loaded with each new connection; returns its SHA-1 for EVALSHA.

        A new script closes the connection, so that the next one loads it; a known script disturbs nothing in flight.
        """
        text = read_script(*files)
        if text not in self._scripts:
            self._scripts.append(text)
            self.close()
        return hash_script(text)

    def enqueue(self, batch: Batch) -> None:
        """Queues the batch for the next `flush`."""
        self._outgoing.append(batch)

    def flush(self) -> None:
        """Sends queued batches. If another greenlet is sending already, that one sends them too."""
        if self._is_sending:
            return
        self._is_sending = True
        taken: list[Batch] = []
        try:
            while taken := self._take_sendable():
                if not self._connection.is_connected:
                    self._connect()
                if self.limit:
                    sent_at = time.monotonic()
                    for batch in taken:
                        batch.sent_at = sent_at
                self._awaiting_reply += taken
                self._sent.set()
                packed = memoryview(taken[0].packed if len(taken) == 1 else b"".join([batch.packed for batch in taken]))
                self._connection.send_packed_command(
                    [packed[i : i + SEND_CHUNK_BYTES] for i in range(0, len(packed), SEND_CHUNK_BYTES)]
                )
        except Exception as error:
            self._fail_pending(error, taken)
        except BaseException:
            self._fail_pending(RedisConnectionError("the sending greenlet was killed"), taken)
            raise
        finally:
            self._is_sending = False

    def _take_sendable(self) -> list[Batch]:
        """Takes the batches that may be sent now."""
        if self.limit is None:
            taken, self._outgoing = self._outgoing, []
        else:
            room = self.limit.value - self._in_flight
            if room < 1:
                if not self.limit.is_distant:
                    return []
                room = 0
            taken, self._outgoing = self._outgoing[:room], self._outgoing[room:]
            self._in_flight += len(taken)
        piggyback = self._piggyback() if self._piggyback else None
        return [piggyback, *taken] if piggyback else taken

    def _connect(self) -> None:
        """Opens the connection and loads the scripts; their replies are read here, not in `_read_loop`."""
        self._connection.connect()
        for text in self._scripts:
            self._connection.send_command("SCRIPT", "LOAD", text)
            self._connection.read_response()
        if self.limit:
            self.limit.forget()
        if self._reader is None or self._reader.dead:
            self._reader = gevent.spawn(self._read_loop)

    def _read_loop(self) -> None:
        while True:
            self._sent.wait()
            generation = self._generation
            try:
                while self._awaiting_reply:
                    self._read_replies()
                    self.flush()
            except Exception as error:
                if generation == self._generation:
                    self._fail_pending(error)
            except BaseException:
                self._fail_pending(RedisConnectionError("the reading greenlet was killed"))
                raise
            if not self._awaiting_reply:
                self._sent.clear()

    def _read_replies(self) -> None:
        """Reads the replies of the oldest batch, which the loop itself would keep while it waits for the next."""
        batch = self._awaiting_reply[0]
        replies = [self._read_reply() for _ in batch.commands]
        self._awaiting_reply.popleft()
        if self.limit:
            self._in_flight -= not batch.is_piggyback
            now = time.monotonic()
            self.limit.record(now - batch.sent_at, now, is_piggyback=batch.is_piggyback)
        batch.replies.set(replies)

    def _read_reply(self) -> Any:
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    def _fail_pending(self, error: Exception, taken: Iterable[Batch] = ()) -> None:
        """Closes the connection and fails every batch: awaiting replies, taken for sending, and queued."""
        self._generation += 1
        waiting = dict.fromkeys((*self._awaiting_reply, *taken, *self._outgoing))
        self._awaiting_reply.clear()
        self._outgoing, self._in_flight = [], 0
        if isinstance(error, OSError) and not isinstance(error, RedisError):
            error = RedisConnectionError(f"{type(error).__name__}: {error}")
        elif not isinstance(error, RedisError):
            log.exception("the connection to Redis broke on an unexpected error", extra={"action": "redis_lost"})
            error = RedisConnectionError(f"broken by an unexpected error: {type(error).__name__}")
        try:
            self._connection.disconnect()
        finally:
            for batch in waiting:
                batch.replies.set_exception(error)

    def close(self) -> None:
        """Closes the connection and fails all pending batches."""
        self._fail_pending(RedisConnectionError("the connection was closed"))

    def reload_scripts(self) -> None:
        """Loads the scripts again, after a SCRIPT FLUSH or a failover. Raises RedisError."""
        batch = Batch([("SCRIPT", "LOAD", text) for text in self._scripts])
        self.enqueue(batch)
        self.flush()
        batch.replies.get()


def hash_script(text: str) -> str:
    """The SHA-1 by which EVALSHA calls a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()
