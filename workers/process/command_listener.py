"""What is said to the workers of a process, over one subscription: RQ's commands, and the fronts' flow messages."""

import json
import logging
from collections.abc import Callable
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError
from rq.command import handle_command

from shared import keys
from workers.worker.rq_worker import FarmWorker

log = logging.getLogger("farm.control")
#: Seconds after which the subscription is looked at again.
POLL_SECONDS = 0.25


class CommandListener:
    """Listens on `rq:pubsub:<worker>` of every worker and hands each command to RQ's own handler."""

    def __init__(self, redis: Redis, hear: Callable[[bytes], None]) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        #: Takes a front's message.
        self._on_acks = hear
        self._workers: dict[str, FarmWorker] = {}
        self._subscribed: set[str] = set()

    def add(self, worker: FarmWorker) -> None:
        """Listens for a worker's commands from the next turn of `run` on."""
        self._workers[worker.pubsub_channel_name] = worker

    def remove(self, worker: FarmWorker) -> None:
        """Listens for them no more."""
        if self._workers.get(worker.pubsub_channel_name) is worker:
            del self._workers[worker.pubsub_channel_name]

    def run(self) -> None:
        """Runs for ever; only this greenlet uses the connection, which redis-py makes again when it is lost."""
        try:
            while True:
                self._listen()
        finally:
            self._pubsub.close()

    def _listen(self) -> None:
        """One turn."""
        try:
            self._subscribe()
            if message := self._pubsub.get_message(timeout=POLL_SECONDS):
                self._handle(message["channel"].decode(), message["data"])
        except (RedisError, OSError) as error:
            log.warning("no commands: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(POLL_SECONDS)

    def _subscribe(self) -> None:
        """Brings the subscription up to date with who works here."""
        wanted = {keys.REPLY_ACKS, *self._workers}
        if new := wanted - self._subscribed:
            self._pubsub.subscribe(*new)
        if old := self._subscribed - wanted:
            self._pubsub.unsubscribe(*old)
        self._subscribed = wanted

    def _handle(self, channel: str, data: bytes) -> None:
        try:
            if channel == keys.REPLY_ACKS:
                self._on_acks(data)
            elif worker := self._workers.get(channel):
                self._run_command(worker, json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("message not understood: %s", error, extra={"action": "bad_command", "reason": channel})

    def _run_command(self, worker: FarmWorker, payload: dict[str, Any]) -> None:
        if payload["command"] == "shutdown":
            worker.stop()
        elif payload["command"] == "stop-job" and not worker.runner.is_running(str(payload["job_id"])):
            worker.runner.cancel_before_start(str(payload["job_id"]))
        else:
            handle_command(worker, payload)
