"""Publishes acknowledgements to the workers, in batches."""

import logging

from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.reply_acks import Ack, AckBatch
from web.reply.mailbox import Mailbox

log = logging.getLogger("farm.hub")
#: Longest delay in seconds before a finished reply is acknowledged.
MAX_ACK_DELAY_SECONDS = 0.5
#: Maximum number of replies acknowledged in one message.
MAX_ACKS_PER_MESSAGE = 1000


class AckPublisher:
    """Collects and publishes acknowledgements.

    A mailbox's acknowledgement may be lost, because the mailbox repeats it; those of finished replies are retried.
    """

    def __init__(self, redis: Redis, front_id: str) -> None:
        self._redis = redis
        self._front_id = front_id
        self._acks: dict[str, Ack] = {}
        self._finished: dict[str, None] = {}
        self._urgent = Event()

    def acknowledge(self, mailbox: Mailbox, retransmit: bool) -> None:
        """Queues an acknowledgement of what the mailbox has received, to be sent immediately."""
        previous = self._acks.get(mailbox.request_id)
        retransmit = retransmit or (previous is not None and previous.retransmit)
        self._acks[mailbox.request_id] = mailbox.build_ack(retransmit=retransmit)
        self._urgent.set()

    def finish(self, request_id: str) -> None:
        """Tells the worker, within MAX_ACK_DELAY_SECONDS, that it may drop its copy of the reply."""
        self._finished[request_id] = None

    def run(self) -> None:
        while True:
            self._urgent.wait(MAX_ACK_DELAY_SECONDS)
            self._urgent.clear()
            self._publish()

    def _publish(self) -> None:
        while self._acks or self._finished:
            acks = [self._acks.popitem() for _ in range(min(MAX_ACKS_PER_MESSAGE, len(self._acks)))]
            finished = [self._finished.popitem()[0] for _ in range(min(MAX_ACKS_PER_MESSAGE, len(self._finished)))]
            try:
                self._redis.publish(keys.REPLY_ACKS, AckBatch(self._front_id, dict(acks), finished).encode())
            except RedisError as error:
                log.warning("can't publish acknowledgements: %s", error, extra={"action": "redis_lost"})
                self._finished |= dict.fromkeys(finished)
                return
