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
PATIENCE = 10.0
#: Bytes that may take PATIENCE to be sent.
PIECE = 256 * 1024
#: More than ever are.
MANY = 1_000_000
Command = tuple[Any, ...]


class Question:
    """Commands, and where their answers come, the errors of single ones among them; or why there are none."""

    def __init__(self, commands: list[Command], *, is_company: bool = False) -> None:
        """Company travels along with others, and is not counted."""
        self.commands = commands
        self.is_company = is_company
        self.packed = b"".join([hiredis.pack_command(command) for command in commands])
        self.answers: AsyncResult[list[Any]] = AsyncResult()

    @property
    def has_failed(self) -> bool:
        """Whether it is known that no answers come."""
        return bool(self.answers.ready()) and not self.answers.successful()


class Line:
    """One connection, opened when it is first needed, for the commands of many greenlets.

    Nobody waits until the answers to others have come: commands leave in the order in which they were asked, and their
    answers come in that order.
    """

    def __init__(self, connections: ConnectionPool) -> None:
        self._connection: Any = connections.make_connection()
        # For good: redis-py would set a timeout before each read, and the old one after it.
        self._connection.socket_timeout = PATIENCE
        self._scripts: list[str] = []
        self._outgoing: list[Question] = []
        self._expected: deque[Question] = deque()
        self._is_sending = False
        #: Grows when the connection breaks.
        self._generation = 0
        self._sent = Event()
        self._reader: gevent.Greenlet | None = None
        #: Questions on their way, company not counted, and the most of them at once.
        self._counted = 0
        self.at_once = MANY
        #: What would like to travel along with what is about to be sent, ahead of it.
        self.company: Callable[[], Question | None] = nobody

    def teach(self, *files: Path) -> str:
        """Loads a Lua script, its parts in their order, with each new connection; returns its hash, for EVALSHA.

        One that is known already disturbs nobody whose commands are on their way.
        """
        text = "\n".join(file.read_text() for file in files)
        if text not in self._scripts:
            self._scripts.append(text)
            self.close()
        return sha1(text.encode(), usedforsecurity=False).hexdigest()

    def put(self, question: Question) -> None:
        """It leaves with the next `send`."""
        self._outgoing.append(question)

    def send(self) -> None:
        """Sends what was put in; what is put in while that takes its time is sent by whoever sends already."""
        if self._is_sending:
            return
        self._is_sending = True
        taken: list[Question] = []
        try:
            while taken := self._next():
                if not self._connection.is_connected:
                    self._connect()
                self._expected += taken
                self._sent.set()
                packed = memoryview(b"".join([question.packed for question in taken]))
                self._connection.send_packed_command([packed[i : i + PIECE] for i in range(0, len(packed), PIECE)])
        except Exception as error:
            self._break(error, taken)
        except BaseException:
            self._break(RedisConnectionError("nobody sends any more"), taken)
            raise
        finally:
            self._is_sending = False

    def _next(self) -> list[Question]:
        """What may leave now."""
        room = self.at_once - self._counted
        if room < 1:
            return []
        company = self.company()
        taken, self._outgoing = self._outgoing[:room], self._outgoing[room:]
        self._counted += len(taken)
        return [company, *taken] if company else taken

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
                while self._expected:
                    question = self._expected[0]
                    found = [self._read_one() for _ in question.commands]
                    self._expected.popleft()
                    self._counted -= not question.is_company
                    question.answers.set(found)
                    self.send()
            except Exception as error:
                if generation == self._generation:
                    self._break(error)
            except BaseException:
                self._break(RedisConnectionError("nobody reads any more"))
                raise
            if not self._expected:
                self._sent.clear()

    def _read_one(self) -> Any:
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    def _break(self, error: Exception, taken: Iterable[Question] = ()) -> None:
        """The connection is of no use any more; whoever waits hears it, and those whose questions were taken."""
        self._generation += 1
        waiting = dict.fromkeys((*self._expected, *taken, *self._outgoing))
        self._expected.clear()
        self._outgoing, self._counted = [], 0
        if not isinstance(error, (RedisError, OSError)):
            log.exception("a mistake has broken the connection to Redis", extra={"action": "redis_lost"})
            error = RedisConnectionError(f"broken by a mistake: {type(error).__name__}")
        try:
            self._connection.disconnect()
        finally:
            for question in waiting:
                question.answers.set_exception(error)

    def close(self) -> None:
        """Gives up the connection."""
        self._break(RedisConnectionError("the connection was given up"))

    def again(self) -> None:
        """Loads the scripts once more: Redis has forgotten them, by SCRIPT FLUSH or a failover."""
        self.put(Question([("SCRIPT", "LOAD", text) for text in self._scripts]))


def nobody() -> None:
    """Who travels along where nobody does."""
