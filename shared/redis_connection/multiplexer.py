"""One connection to Redis that never waits for one answer before it sends more; it does not know who asks."""

import logging
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

log = logging.getLogger("farm.redis_line")
#: Seconds that Redis may take for an answer before the connection counts as broken.
REPLY_TIMEOUT_SECONDS = 10.0
#: Bytes that may take PATIENCE to be sent.
SEND_CHUNK_BYTES = 256 * 1024
#: More than ever are.
UNLIMITED = 1_000_000
Command = tuple[Any, ...]


class Batch:
    """Commands, and where their answers come, the errors of single ones among them; or why there are none."""

    def __init__(self, commands: list[Command], *, is_piggyback: bool = False) -> None:
        """Company travels along with others, and is not counted."""
        self.commands = commands
        self.is_piggyback = is_piggyback
        self.packed = b"".join([hiredis.pack_command(command) for command in commands])
        self.replies: AsyncResult[list[Any]] = AsyncResult()

    @property
    def has_failed(self) -> bool:
        """Whether it is known that no answers come."""
        return bool(self.replies.ready()) and not self.replies.successful()


class Multiplexer:
    """One connection, opened when it is first needed, for the commands of many greenlets.

    Nobody waits until the answers to others have come: commands leave in the order in which they were asked, and their
    answers come in that order.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        *,
        max_in_flight: int = UNLIMITED,
        piggyback: Callable[[], Batch | None] | None = None,
    ) -> None:
        """At most `max_in_flight` batches await their replies at a time.

        `piggyback` is called before each send: the batch that it returns is sent ahead, and does not count.
        """
        self._connection: Any = connections.make_connection()
        # For good: redis-py would set a timeout before each read, and the old one after it.
        self._connection.socket_timeout = REPLY_TIMEOUT_SECONDS
        self._scripts: list[str] = []
        self._outgoing: list[Batch] = []
        self._awaiting_reply: deque[Batch] = deque()
        self._is_sending = False
        #: Grows when the connection breaks.
        self._generation = 0
        self._sent = Event()
        self._reader: gevent.Greenlet | None = None
        #: Batches that await their replies, piggybacked ones not counted.
        self._in_flight = 0
        self._max_in_flight = max_in_flight
        self._piggyback = piggyback

    def load_script(self, *files: Path) -> str:
        """Loads a Lua script, its parts in their order, with each new connection; returns its hash, for EVALSHA.

        One that is known already disturbs nobody whose commands are on their way.
        """
        text = read_script(*files)
        if text not in self._scripts:
            self._scripts.append(text)
            self.close()
        return hash_script(*files)

    def enqueue(self, question: Batch) -> None:
        """It leaves with the next `send`."""
        self._outgoing.append(question)

    def flush(self) -> None:
        """Sends what was put in; what is put in while that takes its time is sent by whoever sends already."""
        if self._is_sending:
            return
        self._is_sending = True
        taken: list[Batch] = []
        try:
            while taken := self._take_sendable():
                if not self._connection.is_connected:
                    self._connect()
                self._awaiting_reply += taken
                self._sent.set()
                packed = memoryview(b"".join([question.packed for question in taken]))
                self._connection.send_packed_command(
                    [packed[i : i + SEND_CHUNK_BYTES] for i in range(0, len(packed), SEND_CHUNK_BYTES)]
                )
        except Exception as error:
            self._fail_pending(error, taken)
        except BaseException:
            self._fail_pending(RedisConnectionError("nobody sends any more"), taken)
            raise
        finally:
            self._is_sending = False

    def _take_sendable(self) -> list[Batch]:
        """What may leave now."""
        room = self._max_in_flight - self._in_flight
        if room < 1:
            return []
        piggyback = self._piggyback() if self._piggyback else None
        taken, self._outgoing = self._outgoing[:room], self._outgoing[room:]
        self._in_flight += len(taken)
        return [piggyback, *taken] if piggyback else taken

    def _connect(self) -> None:
        """Opens the connection, whose first answers are read here."""
        self._connection.connect()
        for text in self._scripts:
            self._connection.send_command("SCRIPT", "LOAD", text)
            self._connection.read_response()
        if self._reader is None or self._reader.dead:
            self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        """Runs for ever: hands out answers."""
        while True:
            self._sent.wait()
            generation = self._generation
            try:
                while self._awaiting_reply:
                    question = self._awaiting_reply[0]
                    found = [self._read_one() for _ in question.commands]
                    self._awaiting_reply.popleft()
                    self._in_flight -= not question.is_piggyback
                    question.replies.set(found)
                    self.flush()
            except Exception as error:
                if generation == self._generation:
                    self._fail_pending(error)
            except BaseException:
                self._fail_pending(RedisConnectionError("nobody reads any more"))
                raise
            if not self._awaiting_reply:
                self._sent.clear()

    def _read_one(self) -> Any:
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    def _fail_pending(self, error: Exception, taken: Iterable[Batch] = ()) -> None:
        """The connection is of no use any more; whoever waits hears it, and those whose questions were taken."""
        self._generation += 1
        waiting = dict.fromkeys((*self._awaiting_reply, *taken, *self._outgoing))
        self._awaiting_reply.clear()
        self._outgoing, self._in_flight = [], 0
        if not isinstance(error, (RedisError, OSError)):
            log.exception("a mistake has broken the connection to Redis", extra={"action": "redis_lost"})
            error = RedisConnectionError(f"broken by a mistake: {type(error).__name__}")
        try:
            self._connection.disconnect()
        finally:
            for question in waiting:
                question.replies.set_exception(error)

    def close(self) -> None:
        """Gives up the connection."""
        self._fail_pending(RedisConnectionError("the connection was given up"))

    def reload_scripts(self) -> None:
        """Loads the scripts once more: Redis has forgotten them, by SCRIPT FLUSH or a failover."""
        self.enqueue(Batch([("SCRIPT", "LOAD", text) for text in self._scripts]))


def read_script(*files: Path) -> str:
    """The Lua script in these files, concatenated in their order: functions first."""
    return "\n".join(file.read_text() for file in files)


def hash_script(*files: Path) -> str:
    """The hash by which EVALSHA calls the script in these files."""
    return sha1(read_script(*files).encode(), usedforsecurity=False).hexdigest()
