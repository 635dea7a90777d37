"""Adds up the request log, so that what was used is known for longer than its entries are kept."""

import time
from pathlib import Path
from typing import cast

import gevent
from redis import Redis

from shared import keys
from shared.observability.usage import DAYS_KEPT, MOST_FIELDS
from shared.redis_connection.client import script

#: Entries added up in one go, two milliseconds in which Redis does nothing else, and the seconds between two goes.
MOST, REST = 200, 0.05
DAY = 86_400


class Ledger:
    """One of those who add up; it does not matter which of all worker processes does."""

    def __init__(self, redis: Redis, entries: int, log_days: float, usage_days: float) -> None:
        """Entries and days that the log keeps, days that the sums of hours are kept."""
        self._redis = redis
        self._fold = script(redis, Path(__file__).with_name("roll_up.lua"))
        self._entries = entries
        self._log_seconds = log_days * DAY
        self._usage_seconds = int(usage_days * DAY)

    def add_up(self) -> int:
        """All that is new; returns how many entries."""
        kept = (self._usage_seconds, DAYS_KEPT * DAY, MOST_FIELDS)
        added, found = 0, MOST
        while found == MOST:
            names = [keys.LOG, keys.USAGE_FOLDED, keys.LAST_USED]
            found = cast("int", self._fold(keys=names, args=[MOST, keys.usage_hour(""), keys.usage_day(""), *kept]))
            added += found
            gevent.sleep(REST if found == MOST else 0)
        return added

    def trim(self) -> None:
        """Forgets the oldest entries of the log, above its number and beyond its age; they are added up before."""
        self.add_up()
        self._redis.xtrim(keys.LOG, maxlen=self._entries, approximate=True)
        self._redis.xtrim(keys.LOG, minid=int(1000 * (time.time() - self._log_seconds)), approximate=True)
