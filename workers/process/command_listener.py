"""Receives RQ's commands, the farm's own, and the fronts' acknowledgements over one subscription."""

import json
import logging
from collections.abc import Callable
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError
from rq.command import handle_command

from shared import keys
from shared.protocol.relay_queue import REQUEST_CANCELLED
from workers.worker.job_completion import CULPRIT, SERVED
from workers.worker.rq_worker import FarmWorker

log = logging.getLogger("farm.control")
#: Seconds to wait for a message before the subscription is updated.
POLL_SECONDS = 0.25


class CommandListener:
    """Listens on `rq:pubsub:<worker>` for every worker and passes each of RQ's commands to RQ's own handler."""

    def __init__(self, redis: Redis, on_acks: Callable[[bytes], None]) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._on_acks = on_acks
        #: Channel -> worker.
        self._workers: dict[str, FarmWorker] = {}
        self._subscribed: set[str] = set()

    def add(self, worker: FarmWorker) -> None:
        """Starts to listen for a worker's commands, with the next poll."""
        self._workers[worker.pubsub_channel_name] = worker

    def remove(self, worker: FarmWorker) -> None:
        """Stops listening, unless the name belongs to a newer worker by now."""
        if self._workers.get(worker.pubsub_channel_name) is worker:
            del self._workers[worker.pubsub_channel_name]

    def run(self) -> None:
        """Runs forever. Only this greenlet uses the connection, which redis-py reopens when it is lost."""
        try:
            while True:
                self._poll()
        finally:
            self._pubsub.close()

    def _poll(self) -> None:
        try:
            self._update_subscription()
            if message := self._pubsub.get_message(timeout=POLL_SECONDS):
                self._handle(message["channel"].decode(), message["data"])
        except RedisError as error:
            log.warning("cannot receive commands: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(POLL_SECONDS)

    def _update_subscription(self) -> None:
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
            log.warning("invalid message: %s", error, extra={"action": "bad_command", "reason": channel})

    def _run_command(self, worker: FarmWorker, payload: dict[str, Any]) -> None:
        if payload["command"] == "shutdown":
            worker.stop()
        elif payload["command"] == "look":
            worker.look_again()
        elif payload["command"] == CULPRIT:
            if worker.runner.health.take_back(str(payload["request_id"])):
                worker.look_again()
        elif payload["command"] == SERVED:
            worker.runner.health.convict(str(payload["request_id"]))
        elif payload["command"] == "stop-job" and not worker.runner.is_running(str(payload["job_id"])):
            worker.runner.cancel_before_start(str(payload["job_id"]))
        elif payload["command"] == "stop-job" and payload.get("reason") == REQUEST_CANCELLED:
            worker.runner.cancel(REQUEST_CANCELLED)
        else:
            handle_command(worker, payload)
