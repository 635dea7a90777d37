"""Retries idempotent Redis operations while Redis is away."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import gevent
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = logging.getLogger("farm.persistence")
T = TypeVar("T")
#: Seconds that a request waits for Redis to come back.
REDIS_TIMEOUT_SECONDS = 10.0
#: Longest pause in seconds between two tries of `retry_for`.
MAX_PAUSE_SECONDS = 0.2
#: Seconds between the first two tries of `retry_forever`; doubled each time, up to the maximum.
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.05, 1.0
#: Redis is away. Errors by which it refuses a command (out of memory, read only) are not retried.
AWAY = (RedisConnectionError, RedisTimeoutError, OSError)


def never() -> bool:
    """The default of `retry_for`: nothing cancels it."""
    return False


def retry_for(work: Callable[[], T], is_cancelled: Callable[[], bool] = never) -> T:
    """Retries until Redis is back, REDIS_TIMEOUT_SECONDS have passed or the retry is cancelled.

    Raises RedisError or OSError when Redis does not come back in time, or refuses.
    """
    give_up_at = time.monotonic() + REDIS_TIMEOUT_SECONDS
    while True:
        try:
            return work()
        except AWAY:
            if time.monotonic() > give_up_at or is_cancelled():
                raise
        gevent.sleep(random.uniform(0.25, 1.0) * MAX_PAUSE_SECONDS)


def retry_forever(work: Callable[[], T], message: str) -> T:
    """Retries until it succeeds; `message` says in the log what is waiting."""
    pause = BACKOFF_SECONDS
    while True:
        try:
            return work()
        except (RedisError, OSError) as error:
            log.warning("%s: %s", message, error, extra={"action": "redis_lost"})
            gevent.sleep(pause)
            pause = min(2 * pause, MAX_BACKOFF_SECONDS)
