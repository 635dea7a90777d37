"""Waiting for a Redis that is away for a moment, so that a restart of it is no error to a caller; it keeps no state."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import gevent
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

T = TypeVar("T")
#: Seconds that a request waits for Redis.
PATIENCE = 10.0
#: Longest pause in seconds between two tries.
PAUSE = 0.2
#: What says that Redis is away; a Redis that refuses (out of memory, read only) is not waited for.
AWAY = (RedisConnectionError, RedisTimeoutError, OSError)


def never() -> bool:
    """Nothing ends the wait."""
    return False


def patiently(work: Callable[[], T], is_over: Callable[[], bool] = never) -> T:
    """Does the work, again while Redis is away and the wait is not over; the work must bear being done twice.

    Raises RedisError or OSError when Redis does not come back in time.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except AWAY:
            if time.monotonic() > until or is_over():
                raise
        gevent.sleep(random.uniform(0.25, 1.0) * PAUSE)
