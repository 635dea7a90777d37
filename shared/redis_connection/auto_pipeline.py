"""Pipelines the commands of many greenlets over one connection to Redis.

In redis-py's pool every command has a checkout, a liveness check, a send and a read of its own, which cost more than
the command. Commands retried after a broken connection must be idempotent.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import NoScriptError

from shared.redis_connection.in_flight_limit import InFlightLimit
from shared.redis_connection.multiplexer import Batch, Command, Multiplexer

#: Bytes of commands beyond which they are sent over a connection of their own.
MAX_SMALL_BYTES = 65_536


class AutoPipeline:
    """Executes commands of many greenlets over one connection."""

    def __init__(
        self,
        redis: Redis,
        *,
        eager: bool = False,
        limit: InFlightLimit | None = None,
        piggyback: Callable[[], Batch | None] | None = None,
    ) -> None:
        """With `eager`, each command is sent at once; else commands of one event loop iteration leave in one batch.

        Batches cost less, but their replies arrive together too, so each greenlet is delayed by the work of all others.
        `limit` bounds the batches that await their replies; None for any number.
        """
        self.multiplexer = Multiplexer(redis.connection_pool, limit=limit, piggyback=piggyback)
        #: For large commands, which would hold up all others for as long as they take to send.
        self._bulk = Multiplexer(redis.connection_pool)
        self._eager = eager
        self._wake = Event()
        #: Kept between batches: spawning a greenlet for each would allocate a stack from the system.
        self._sender: gevent.Greenlet | None = None

    def register_script(self, *files: Path) -> "PipelinedScript":
        """Registers the Lua script made of these files, concatenated in order: functions first."""
        return PipelinedScript(self, self.multiplexer.load_script(*files))

    def execute(self, *command: Any) -> Any:
        """Returns the reply. Raises RedisError."""
        (reply,) = self.execute_all([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def execute_all(self, commands: list[Command]) -> list[Any]:
        """Returns the replies, including errors of single commands. Raises RedisError."""
        return self.wait_for(self.submit(commands))

    def wait_for(self, batch: Batch) -> list[Any]:
        """Waits for the batch's replies. Loads and retries scripts that Redis no longer has."""
        replies: list[Any] = batch.replies.get()
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            self.multiplexer.reload_scripts()
            retried = self.submit([batch.commands[i] for i in unknown]).replies.get()
            for i, reply in zip(unknown, retried, strict=True):
                replies[i] = reply
        return replies

    def submit(self, commands: list[Command]) -> Batch:
        """Sends commands without waiting for their replies (`wait_for`)."""
        batch = Batch(commands)
        if len(batch.packed) > MAX_SMALL_BYTES:
            self._bulk.enqueue(batch)
            self._bulk.flush()
            return batch
        self.multiplexer.enqueue(batch)
        if self._eager:
            self.multiplexer.flush()
        else:
            self._wake.set()
            if self._sender is None or self._sender.dead:
                self._sender = gevent.spawn(self._flush_loop)
        return batch

    def _flush_loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self.multiplexer.flush()


class PipelinedScript:
    """A Lua script, called by its SHA-1."""

    def __init__(self, pipeline: AutoPipeline, sha: str) -> None:
        self._pipeline = pipeline
        self._sha = sha

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        """Returns the script's result. Raises RedisError."""
        return self._pipeline.execute(*self._build_command(keys, args))

    def submit(self, keys: list[str], args: list[Any]) -> Batch:
        """Calls the script without waiting for its result (`AutoPipeline.wait_for`)."""
        return self._pipeline.submit([self._build_command(keys, args)])

    def _build_command(self, keys: list[str], args: list[Any]) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *args)
