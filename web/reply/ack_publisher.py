"""Says to the workers how far this front is with its answers: what comes together goes together."""

import logging

from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.reply_acks import Ack, AckBatch
from web.reply.mailbox import Mailbox

log = logging.getLogger("farm.hub")
#: Longest time in seconds that an answer stays unconfirmed after its end.
MAX_ACK_DELAY_SECONDS = 0.5
#: Answers told of in one message.
MAX_ACKS_PER_MESSAGE = 1000


class AckPublisher:
    """Gathers and publishes. What mailboxes say may be lost, because they ask again; what is over is kept."""

    def __init__(self, redis: Redis, front_id: str) -> None:
        self._redis = redis
        self._front_id = front_id
        self._acks: dict[str, Ack] = {}
        self._finished: dict[str, None] = {}
        self._urgent = Event()

    def acknowledge(self, mailbox: Mailbox, retransmit: bool) -> None:
        """The worker should know where that mailbox is."""
        previous = self._acks.get(mailbox.request_id)
        retransmit = retransmit or (previous is not None and previous.retransmit)
        self._acks[mailbox.request_id] = mailbox.build_ack(retransmit=retransmit)
        self._urgent.set()

    def finish(self, request_id: str) -> None:
        """Nobody waits for that answer any more."""
        self._finished[request_id] = None

    def run(self) -> None:
        """Runs for ever."""
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
            except (RedisError, OSError) as error:
                log.warning("the workers can't be told: %s", error, extra={"action": "redis_lost"})
                self._finished |= dict.fromkeys(finished)
                return
