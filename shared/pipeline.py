"""Commands of many greenlets over one connection to Redis: what is asked together travels together.

redis-py's pool gives every command a connection, a look whether it lives, a send and a read of its own, which costs
more than the command. Commands that are sent again after a broken connection must bear being done twice.
"""

from hashlib import sha1
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from redis import Redis
from redis.connection import ConnectionPool
from redis.exceptions import NoScriptError, ResponseError

#: Seconds that Redis may take for an answer before the connection counts as broken.
PATIENCE = 10.0
#: Commands in a batch.
MOST = 64
Command = tuple[Any, ...]


class Line:
    """One connection, opened when it is first needed, that takes batches of commands and knows scripts."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connection: Any = connections.make_connection()
        self._scripts: list[str] = []

    def teach(self, *files: Path) -> str:
        """Loads a Lua script, its parts in their order, with each new connection; returns its hash, for EVALSHA."""
        text = "\n".join(file.read_text() for file in files)
        self._scripts.append(text)
        self.close()
        return sha1(text.encode(), usedforsecurity=False).hexdigest()

    def exchange(self, commands: list[Command]) -> list[Any]:
        """The answers, the errors of single commands among them.

        Raises RedisError or OSError when the connection breaks; redis-py closes it then, the next call opens it anew.
        """
        answers = self._ask(commands)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            self._ask([("SCRIPT", "LOAD", text) for text in self._scripts])
            again = self._ask([commands[i] for i in unknown])
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return answers

    def _ask(self, commands: list[Command]) -> list[Any]:
        connection = self._connected()
        connection.send_packed_command(connection.pack_commands(commands))
        return [self._read(connection) for _ in commands]

    def _connected(self) -> Any:
        if not self._connection.is_connected:
            self._connection.connect()
            self._ask([("SCRIPT", "LOAD", text) for text in self._scripts])
        return self._connection

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response(timeout=PATIENCE)
        except ResponseError as error:
            return error

    def close(self) -> None:
        """Gives up the connection."""
        self._connection.disconnect()


class Pipeline:
    """Asks for many greenlets, one batch on its way at a time."""

    def __init__(self, redis: Redis, most: int = MOST) -> None:
        """A batch has at most so many commands: a large one lets all who asked go on at once, and be late together."""
        self._line = Line(redis.connection_pool)
        self._most = most
        self._asked: list[tuple[Command, AsyncResult[Any]]] = []
        self._wake = Event()
        #: Lives on between batches: a new one for each would cost a piece of memory from the system.
        self._sender: gevent.Greenlet | None = None

    def script(self, *files: Path) -> "PipelinedScript":
        """The Lua script in these files, one after the other: functions first."""
        return PipelinedScript(self, self._line.teach(*files))

    def ask(self, *command: Any) -> Any:
        """The answer. Raises RedisError or OSError."""
        answer: AsyncResult[Any] = AsyncResult()
        self._asked.append((command, answer))
        self._wake.set()
        if self._sender is None or self._sender.dead:
            self._sender = gevent.spawn(self._run)
        return answer.get()

    def _run(self) -> None:
        """Runs for ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            self._send()

    def _send(self) -> None:
        """Until nobody asks any more; what comes while a batch is on its way is the next one."""
        while self._asked:
            batch, self._asked = self._asked[: self._most], self._asked[self._most :]
            try:
                answers = self._line.exchange([command for command, _ in batch])
            except Exception as error:
                # Those behind it would wait as long, one after the other.
                batch, self._asked = batch + self._asked, []
                answers = [error] * len(batch)
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    waiting.set_exception(answer)
                else:
                    waiting.set(answer)


class PipelinedScript:
    """A Lua script that is called by its hash."""

    def __init__(self, pipeline: Pipeline, sha: str) -> None:
        self._pipeline = pipeline
        self._sha = sha

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        """Its result. Raises RedisError or OSError."""
        return self._pipeline.ask("EVALSHA", self._sha, len(keys), *keys, *args)
