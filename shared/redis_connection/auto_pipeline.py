"""Commands of many greenlets over one connection to Redis.

redis-py's pool gives every command a connection, a look whether it lives, a send and a read of its own, which costs
more than the command. Commands that are sent again after a broken connection must bear being done twice.
"""

from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import NoScriptError

from shared.redis_connection.multiplexer import MANY, Command, Line, Question


class Pipeline:
    """Asks for many greenlets over one line."""

    def __init__(self, redis: Redis, *, eager: bool = False, at_once: int = MANY) -> None:
        """An eager one sends each command at once; else what is asked in one go of the event loop leaves together.

        Together costs less, but who was answered together goes on together, and is late by the work for all.
        """
        self.line = Line(redis.connection_pool)
        self._eager = eager
        self.line.at_once = at_once
        self._wake = Event()
        #: Lives on between batches: a new one for each would cost a piece of memory from the system.
        self._sender: gevent.Greenlet | None = None

    def script(self, *files: Path) -> "PipelinedScript":
        """The Lua script in these files, one after the other: functions first."""
        return PipelinedScript(self, self.line.teach(*files))

    def ask(self, *command: Any) -> Any:
        """The answer. Raises RedisError or OSError."""
        (answer,) = self.ask_all([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_all(self, commands: list[Command]) -> list[Any]:
        """The answers, the errors of single commands among them. Raises RedisError or OSError."""
        return self.answers(self._asked(commands))

    def answers(self, question: Question) -> list[Any]:
        """What was asked, when it is answered; scripts that Redis has forgotten are called again."""
        answers: list[Any] = question.answers.get()
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            self.line.again()
            again = self._asked([question.commands[i] for i in unknown]).answers.get()
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return answers

    def _asked(self, commands: list[Command]) -> Question:
        question = Question(commands)
        self.line.put(question)
        if self._eager:
            self.line.send()
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
            self.line.send()


class PipelinedScript:
    """A Lua script that is called by its hash."""

    def __init__(self, pipeline: Pipeline, sha: str) -> None:
        self._pipeline = pipeline
        self._sha = sha

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        """Its result. Raises RedisError or OSError."""
        return self._pipeline.ask("EVALSHA", self._sha, len(keys), *keys, *args)
