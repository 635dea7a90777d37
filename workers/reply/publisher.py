"""Publishes the frames of all replies of a worker process in batches, retrying batches whose connection broke."""

import logging
import time
from typing import Any

import gevent
from redis.exceptions import RedisError

from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.multiplexer import Batch, Command
from workers.reply.outbox import MARK_BEGUN_SCRIPT, Outbox

log = logging.getLogger("farm.publisher")
#: Seconds after a batch in which bytes from the middle of a response wait for others to be published with them.
COALESCE_SECONDS = 0.005
#: Seconds before the first retry of a batch; doubled each time, up to the maximum.
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.05, 0.5


class Publisher:
    """Sends what the outbox collects. A frame may be published twice: the front drops numbers that it has seen."""

    def __init__(self, outbox: Outbox, pipeline: AutoPipeline) -> None:
        """`pipeline` piggybacks the outbox: a reply's end and the end of its job are sent together."""
        self._outbox = outbox
        self._pipeline = pipeline
        pipeline.multiplexer.load_script(*MARK_BEGUN_SCRIPT)
        self._published_at = 0.0
        #: The oldest batch in flight, once the loop is to be woken by its replies.
        self._awaited: Batch | None = None

    def run(self) -> None:
        """Forever: 1. waits for frames, and briefly for more, 2. sends all of them, 3. sees that they have arrived.

        Frames don't wait for the replies to earlier ones of a distant Redis. One nearby gets a batch at a time, which
        costs less and is as soon. The end of a job sends what is unsent without waiting, because its worker has
        something to send to Redis anyway.
        """
        outbox, limit = self._outbox, self._pipeline.multiplexer.limit
        outbox.has_work.set()
        while True:
            outbox.has_work.wait()
            outbox.has_work.clear()
            if limit and limit.is_distant:
                self._publish_afar()
                continue
            if not outbox.in_flight:
                outbox.is_urgent.wait(max(0.0, self._published_at + COALESCE_SECONDS - time.monotonic()))
            outbox.is_urgent.clear()
            self._pipeline.multiplexer.flush()
            if outbox.in_flight:
                while outbox.in_flight:
                    self._complete_oldest()
                self._published_at = time.monotonic()
            elif outbox.has_unsent:
                # The frames travel with the next commands; or the connection has broken, and there are none.
                gevent.sleep(COALESCE_SECONDS)
            if outbox.has_unsent:
                outbox.has_work.set()
            else:
                outbox.has_work.clear()

    def _publish_afar(self) -> None:
        outbox = self._outbox
        self._complete_arrived()
        if outbox.has_unsent:
            outbox.is_urgent.wait(max(0.0, self._published_at + COALESCE_SECONDS - time.monotonic()))
            outbox.is_urgent.clear()
            self._pipeline.multiplexer.flush()
            self._published_at = time.monotonic()
            self._complete_arrived()
            if outbox.has_unsent:
                gevent.sleep(COALESCE_SECONDS)
                outbox.has_work.set()

    def _complete_arrived(self) -> None:
        """Sees to the batches whose replies have come, in order; the next one's will wake the loop."""
        in_flight = self._outbox.in_flight
        while in_flight:
            batch, _ = in_flight[0]
            if batch and not batch.is_complete:
                if batch is not self._awaited:
                    self._awaited = batch
                    self._outbox.wake_when_complete(batch)
                return
            self._complete_oldest()

    def _complete_oldest(self) -> None:
        """Returns when Redis has accepted the oldest batch in flight."""
        batch, _ = self._outbox.in_flight[0]
        try:
            if batch:
                self._check_replies(batch)
        finally:
            self._outbox.complete_oldest()

    def _check_replies(self, batch: Batch) -> None:
        """Retries a batch that has not arrived. A command that Redis refuses is logged only: replies go on."""
        try:
            replies = self._pipeline.wait_for(batch)
        except RedisError as error:
            replies = self._retry(batch.commands, error)
        for command, reply in zip(batch.commands, replies, strict=True):
            if isinstance(reply, Exception):
                log.warning("%s was refused: %s", command[0], reply, extra={"action": "redis_refused"})

    def _retry(self, commands: list[Command], error: Exception) -> list[Any]:
        """Sends the commands until Redis replies."""
        pause = BACKOFF_SECONDS
        while True:
            log.warning("frames can't be published: %s", error, extra={"action": "publish_retried"})
            gevent.sleep(pause)
            pause = min(2 * pause, MAX_BACKOFF_SECONDS)
            try:
                return self._pipeline.execute_all(commands)
            except RedisError as next_error:
                error = next_error
