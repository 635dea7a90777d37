"""Adds up the request log, so that what was used is known for longer than its entries are kept."""

import time
from pathlib import Path
from typing import cast

import gevent
from redis import Redis

from shared import keys
from shared.observability.usage import DAY_SUMS_TTL_DAYS, MAX_FIELDS
from shared.redis_connection.client import register_script

#: Entries added up in one go, two milliseconds in which Redis does nothing else, and the seconds between two goes.
BATCH_ENTRIES, PAUSE_SECONDS = 200, 0.05
DAY_SECONDS = 86_400


class UsageRollup:
    """One of those who add up; it does not matter which of all worker processes does."""

    def __init__(self, redis: Redis, entries: int, log_days: float, usage_days: float) -> None:
        """Entries and days that the log keeps, days that the sums of hours are kept."""
        self._redis = redis
        self._roll_up_script = register_script(redis, Path(__file__).with_name("roll_up.lua"))
        self._entries = entries
        self._log_seconds = log_days * DAY_SECONDS
        self._usage_seconds = int(usage_days * DAY_SECONDS)

    def roll_up(self) -> int:
        """All that is new; returns how many entries."""
        kept = (self._usage_seconds, DAY_SUMS_TTL_DAYS * DAY_SECONDS, MAX_FIELDS)
        added, found = 0, BATCH_ENTRIES
        while found == BATCH_ENTRIES:
            names = [keys.REQUEST_LOG, keys.USAGE_ROLLED_UP, keys.LAST_USED]
            found = cast(
                "int",
                self._roll_up_script(keys=names, args=[BATCH_ENTRIES, keys.usage_hour(""), keys.usage_day(""), *kept]),
            )
            added += found
            gevent.sleep(PAUSE_SECONDS if found == BATCH_ENTRIES else 0)
        return added

    def trim(self) -> None:
        """Forgets the oldest entries of the log, above its number and beyond its age; they are added up before."""
        self.roll_up()
        self._redis.xtrim(keys.REQUEST_LOG, maxlen=self._entries, approximate=True)
        self._redis.xtrim(keys.REQUEST_LOG, minid=int(1000 * (time.time() - self._log_seconds)), approximate=True)
