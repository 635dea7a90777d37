"""Rolls the request log up into hourly and daily sums, which outlive its entries."""

from pathlib import Path
from typing import cast

import gevent
from redis import Redis

from shared import clock, keys
from shared.observability.usage import DAY_SUMS_TTL_DAYS, MAX_SUM_FIELDS
from shared.redis_connection.client import register_script

#: Entries per call of the script, which block Redis for two milliseconds; seconds between two calls.
BATCH_ENTRIES, PAUSE_SECONDS = 200, 0.05
DAY_SECONDS = 86_400


class UsageRollup:
    """Any number of worker processes may run one at the same time: each entry is added once."""

    def __init__(self, redis: Redis, max_log_entries: int, log_days: float, usage_days: float) -> None:
        """`log_days` is how long the log keeps an entry, `usage_days` how long an hourly sum is kept."""
        self._redis = redis
        self._roll_up_script = register_script(redis, Path(__file__).with_name("roll_up.lua"))
        self._max_log_entries = max_log_entries
        self._log_seconds = log_days * DAY_SECONDS
        self._usage_seconds = int(usage_days * DAY_SECONDS)

    def roll_up(self) -> int:
        """Adds all new entries to the sums; returns how many there were."""
        script_keys = [keys.REQUEST_LOG, keys.USAGE_ROLLED_UP, keys.LAST_USED]
        prefixes = (keys.usage_hour(""), keys.usage_day(""))
        limits = (self._usage_seconds, DAY_SUMS_TTL_DAYS * DAY_SECONDS, MAX_SUM_FIELDS)
        total, batch = 0, BATCH_ENTRIES
        while batch == BATCH_ENTRIES:
            batch = cast("int", self._roll_up_script(keys=script_keys, args=[BATCH_ENTRIES, *prefixes, *limits]))
            total += batch
            gevent.sleep(PAUSE_SECONDS if batch == BATCH_ENTRIES else 0)
        return total

    def trim(self) -> None:
        """Rolls the log up, then removes its oldest entries beyond the maximum count and age."""
        self.roll_up()
        self._redis.xtrim(keys.REQUEST_LOG, maxlen=self._max_log_entries, approximate=True)
        self._redis.xtrim(keys.REQUEST_LOG, minid=int(1000 * (clock.now() - self._log_seconds)), approximate=True)
