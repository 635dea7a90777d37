"""Says to the workers how far this front is with its answers: what comes together goes together."""

import logging

from gevent.event import Event
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.reply_acks import Flow, Position
from web.reply.mailbox import Mailbox

log = logging.getLogger("farm.hub")
#: Longest time in seconds that an answer stays unconfirmed after its end.
CONFIRM_EVERY = 0.5
#: Answers told of in one message.
MOST = 1000


class Speaker:
    """Gathers and publishes. What mailboxes say may be lost, because they ask again; what is over is kept."""

    def __init__(self, redis: Redis, front: str) -> None:
        self._redis = redis
        self._front = front
        self._positions: dict[str, Position] = {}
        self._over: dict[str, None] = {}
        self._urgent = Event()

    def at(self, mailbox: Mailbox, again: bool) -> None:
        """The worker should know where that mailbox is."""
        before = self._positions.get(mailbox.request_id)
        again = again or (before is not None and before.again)
        self._positions[mailbox.request_id] = mailbox.at(again=again)
        self._urgent.set()

    def over(self, request_id: str) -> None:
        """Nobody waits for that answer any more."""
        self._over[request_id] = None

    def run(self) -> None:
        """Runs for ever."""
        while True:
            self._urgent.wait(CONFIRM_EVERY)
            self._urgent.clear()
            self._say()

    def _say(self) -> None:
        while self._positions or self._over:
            positions = [self._positions.popitem() for _ in range(min(MOST, len(self._positions)))]
            over = [self._over.popitem()[0] for _ in range(min(MOST, len(self._over)))]
            try:
                self._redis.publish(keys.FLOW, Flow(self._front, dict(positions), over).encode())
            except (RedisError, OSError) as error:
                log.warning("the workers can't be told: %s", error, extra={"action": "redis_lost"})
                self._over |= dict.fromkeys(over)
                return
