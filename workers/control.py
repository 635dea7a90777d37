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
#: Seconds after which the subscription is looked at again.
TURN = 0.25


class Control:
    """Listens on `rq:pubsub:<worker>` of every worker and hands each command to RQ's own handler."""

    def __init__(self, redis: Redis) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
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
            if not self._subscribed:
                gevent.sleep(TURN)
            elif message := self._pubsub.get_message(timeout=TURN):
                self._handle(message)
        except (RedisError, OSError) as error:
            log.warning("no commands: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(TURN)

    def _subscribe(self) -> None:
        """Brings the subscription up to date with who works here."""
        wanted = set(self._workers)
        if new := wanted - self._subscribed:
            self._pubsub.subscribe(*new)
        if old := self._subscribed - wanted:
            self._pubsub.unsubscribe(*old)
        self._subscribed = wanted

    def _handle(self, message: dict[str, Any]) -> None:
        worker = self._workers.get(message["channel"].decode())
        if worker is None:
            return
        try:
            payload = json.loads(message["data"])
            if payload["command"] == "shutdown":
                worker.stop()
            elif payload["command"] == "stop-job" and not worker.serving.works_on(str(payload["job_id"])):
                worker.serving.stop_early(str(payload["job_id"]))
            else:
                handle_command(worker, payload)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("command not understood: %s", error, extra={"action": "bad_command", "worker": worker.name})
