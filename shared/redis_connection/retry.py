"""Doing to Redis what must be done, however long Redis is away; what is done here must bear being done twice."""

import logging
from collections.abc import Callable
from typing import TypeVar

import gevent
from redis.exceptions import RedisError

log = logging.getLogger("farm.persistence")
T = TypeVar("T")
#: Seconds before the second try; doubled up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


def surely(work: Callable[[], T], what: str) -> T:
    """Does the work, again and again while Redis does not answer."""
    pause = FIRST_PAUSE
    while True:
        try:
            return work()
        except (RedisError, OSError) as error:
            log.warning("%s: %s", what, error, extra={"action": "redis_lost"})
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def keep_running(work: Callable[[], None]) -> None:
    """Runs what should never end; a mistake in it is logged and does not end it for good."""
    while True:
        try:
            work()
        except Exception:
            log.exception("%s failed and begins again", work.__qualname__, extra={"action": "background_failed"})
        gevent.sleep(LONGEST_PAUSE)
