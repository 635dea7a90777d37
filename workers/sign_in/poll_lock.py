"""Locks of device polls: of all processes one polls for a sign-in."""

import logging

from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.redis_connection.lease import NOT_HELD, build_lease

log = logging.getLogger("farm.sign_in")
#: Seconds more than a poll's interval after which another process takes over the polls of one that has died; the one
#: that replaces it on its host does so at once.
LOCK_SECONDS = 45.0


class PollLock:
    """The locks of one process."""

    def __init__(self, redis: Redis, process_id: str, predecessor: str) -> None:
        """`predecessor`: the dead process that this one replaces, whose locks it takes over."""
        self._process_id = process_id
        self._predecessor = predecessor
        self._hold = build_lease(redis)

    def take(self, sign_in_id: str, interval: float = 0.0) -> bool:
        """Takes or renews the lock until after the next poll, in so many seconds; False if another process has it."""
        ttl_ms = int(1000 * (interval + LOCK_SECONDS))
        return self._hold(keys.sign_in_poll(sign_in_id), self._process_id, ttl_ms, self._predecessor) != NOT_HELD

    def release(self, sign_in_id: str) -> None:
        try:
            self._hold(keys.sign_in_poll(sign_in_id), self._process_id, 0)
        except RedisError as error:
            log.info("a sign-in stays locked for a while: %s", error, extra={"action": "redis_lost"})
