"""Commands of many greenlets over one connection to Redis.

redis-py's pool gives every command a connection, a look whether it lives, a send and a read of its own, which costs
more than the command. Commands that are sent again after a broken connection must bear being done twice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import NoScriptError

from shared.redis_connection.multiplexer import UNLIMITED, Batch, Command, Multiplexer


class AutoPipeline:
    """Asks for many greenlets over one line."""

    def __init__(
        self,
        redis: Redis,
        *,
        eager: bool = False,
        max_in_flight: int = UNLIMITED,
        piggyback: Callable[[], Batch | None] | None = None,
    ) -> None:
        """An eager one sends each command at once; else what is asked in one go of the event loop leaves together.

        Together costs less, but who was answered together goes on together, and is late by the work for all.
        """
        self.multiplexer = Multiplexer(redis.connection_pool, max_in_flight=max_in_flight, piggyback=piggyback)
        self._eager = eager
        self._wake = Event()
        #: Lives on between batches: a new one for each would cost a piece of memory from the system.
        self._sender: gevent.Greenlet | None = None

    def register_script(self, *files: Path) -> "PipelinedScript":
        """The Lua script in these files, one after the other: functions first."""
        return PipelinedScript(self, self.multiplexer.load_script(*files))

    def execute(self, *command: Any) -> Any:
        """The answer. Raises RedisError or OSError."""
        (answer,) = self.execute_all([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def execute_all(self, commands: list[Command]) -> list[Any]:
        """The answers, the errors of single commands among them. Raises RedisError or OSError."""
        return self.wait_for(self._submit(commands))

    def wait_for(self, question: Batch) -> list[Any]:
        """What was asked, when it is answered; scripts that Redis has forgotten are called again."""
        answers: list[Any] = question.replies.get()
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            self.multiplexer.reload_scripts()
            again = self._submit([question.commands[i] for i in unknown]).replies.get()
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return answers

    def _submit(self, commands: list[Command]) -> Batch:
        question = Batch(commands)
        self.multiplexer.enqueue(question)
        if self._eager:
            self.multiplexer.flush()
        else:
            self._wake.set()
            if self._sender is None or self._sender.dead:
                self._sender = gevent.spawn(self._run)
        return question

    def _run(self) -> None:
        """Runs for ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            self.multiplexer.flush()


class PipelinedScript:
    """A Lua script that is called by its hash."""

    def __init__(self, pipeline: AutoPipeline, sha: str) -> None:
        self._pipeline = pipeline
        self._sha = sha

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        """Its result. Raises RedisError or OSError."""
        return self._pipeline.execute("EVALSHA", self._sha, len(keys), *keys, *args)
