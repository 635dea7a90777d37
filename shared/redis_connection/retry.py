"""Retries idempotent Redis operations while Redis is away."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import gevent
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import StoreUnavailable
from shared.redis_connection.client import check_server

log = logging.getLogger("farm.persistence")
T = TypeVar("T")
#: Seconds that `retry_for` waits for Redis to come back.
REDIS_TIMEOUT_SECONDS = 10.0
#: Longest pause in seconds between two tries of `retry_for` (with jitter).
MAX_PAUSE_SECONDS = 0.2
#: First and longest pause in seconds of `retry_forever`; each pause is twice the one before.
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.05, 1.0
#: Errors that mean Redis is unreachable. Refusals of a command (out of memory, read only) are not retried.
CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError)


def never_cancelled() -> bool:
    return False


def retry_for(work: Callable[[], T], is_cancelled: Callable[[], bool] = never_cancelled) -> T:
    """Runs idempotent work, and retries it while Redis is unreachable, for at most REDIS_TIMEOUT_SECONDS.

    Raises RedisError if Redis does not come back in time or refuses the command, or on cancellation.
    """
    give_up_at = time.monotonic() + REDIS_TIMEOUT_SECONDS
    while True:
        try:
            return work()
        except CONNECTION_ERRORS:
            if time.monotonic() > give_up_at or is_cancelled():
                raise
        gevent.sleep(random.uniform(0.25, 1.0) * MAX_PAUSE_SECONDS)


def retry_forever(work: Callable[[], T], message: str) -> T:
    """Retries idempotent work until it succeeds, with backoff; `message` says in the log what is waiting."""
    pause = BACKOFF_SECONDS
    while True:
        try:
            return work()
        except RedisError as error:
            log.warning("%s: %s", message, error, extra={"action": "redis_lost"})
            gevent.sleep(pause)
            pause = min(2 * pause, MAX_BACKOFF_SECONDS)


def wait_for_redis(redis: Redis) -> None:
    """Returns once Redis replies."""
    while True:
        try:
            check_server(redis)
            return
        except StoreUnavailable as error:
            log.warning("waiting for Redis: %s", error, extra={"action": "redis_lost"})
            gevent.sleep(0.5)
