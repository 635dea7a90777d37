"""RQ's commands for all workers of a process, over one subscription: stop a job, stop an execution, shut down."""

import json
import logging
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError
from rq.command import handle_command

from workers.worker import FarmWorker

log = logging.getLogger("farm.control")


class Control:
    """Listens on `rq:pubsub:<worker>` of every worker and hands each command to RQ's own handler."""

    def __init__(self, redis: Redis) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._workers: dict[str, FarmWorker] = {}

    def add(self, worker: FarmWorker) -> None:
        """Listens for a worker's commands."""
        self._workers[worker.pubsub_channel_name] = worker
        self._pubsub.subscribe(worker.pubsub_channel_name)

    def remove(self, worker: FarmWorker) -> None:
        """Listens for them no more."""
        self._workers.pop(worker.pubsub_channel_name, None)
        self._pubsub.unsubscribe(worker.pubsub_channel_name)

    def run(self) -> None:
        """Runs for ever; after a lost connection the subscription is made again by redis-py."""
        while True:
            try:
                message = self._pubsub.get_message(timeout=1.0)
                if message:
                    self._handle(message)
                elif not self._pubsub.subscribed:
                    gevent.sleep(0.2)
            except (RedisError, OSError) as error:
                log.warning("no commands: %s", error, extra={"action": "redis_lost"})
                gevent.sleep(0.5)

    def _handle(self, message: dict[str, Any]) -> None:
        worker = self._workers.get(message["channel"].decode())
        if worker is None:
            return
        try:
            payload = json.loads(message["data"])
            if payload["command"] == "shutdown":
                worker.stop()
            else:
                handle_command(worker, payload)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("command not understood: %s", error, extra={"action": "bad_command", "worker": worker.name})
