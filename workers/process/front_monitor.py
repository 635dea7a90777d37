"""Notices web processes that have died, so that nobody works for callers whose connection died with them (I8, I11).

A web process listens on a channel of its own. When its connection is gone and does not come back while Redis answers,
the process is taken for dead; one that was only cut off takes that back with its next sign of life.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from redis import Redis
from rq.job import Job

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.relay_queue import SCHEDULING_LUA, queue_keys
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.fronts")
#: Seconds without a connection after which a web process is taken for dead.
FRONT_TIMEOUT_SECONDS = 3.0
#: Longest time in seconds between two looks that lets the silence between them count as one.
MAX_CHECK_GAP_SECONDS = 2.0
#: Seconds that a dead one is remembered.
GONE_TTL_SECONDS = 3600
#: Seconds after its last sign of life that it is still looked at.
LISTED_SECONDS = 60.0


class FrontMonitor:
    """What one worker process knows of the web processes."""

    def __init__(
        self, redis: Redis, pools: Callable[[], Iterable[str]], counters: Counters, on_gone: Callable[[str], None]
    ) -> None:
        self._redis = redis
        self._pools = pools
        self._counters = counters
        #: Ends what runs here for a web process.
        self._on_gone = on_gone
        self._purge = register_script(redis, *SCHEDULING_LUA, Path(__file__).with_name("purge_front.lua"))
        self._silent_since: dict[str, float] = {}
        self._looked_at = 0.0
        self._purged: set[str] = set()

    def check(self) -> None:
        """Looks who is there; ends the jobs of those that are gone."""
        now = time.monotonic()
        if now - self._looked_at > MAX_CHECK_GAP_SECONDS:
            self._silent_since.clear()
        known = [one.decode() for one in self._redis.zrange(keys.FRONTS, 0, -1)]
        listening = self._redis.pubsub_numsub(*map(keys.front_channel, known)) if known else []
        silent = {front for front, (_, count) in zip(known, listening, strict=True) if not count}
        self._looked_at = time.monotonic()
        self._purged &= silent
        self._silent_since = {front: self._silent_since.get(front, now) for front in silent}
        for front in [one for one, since in self._silent_since.items() if now - since >= FRONT_TIMEOUT_SECONDS]:
            self._end_front(front)

    def _end_front(self, front: str) -> None:
        """1. End what runs here. 2. Mark it, so that none of its jobs is begun. 3. Take out, once, what waits."""
        self._on_gone(front)
        if self._redis.set(keys.front_gone(front), 1, ex=GONE_TTL_SECONDS, nx=True):
            self._counters.increment("fronts_lost")
            log.warning("a web process is gone", extra={"action": "front_lost", "reason": front})
        if front in self._purged:
            return
        for pool in self._pools():
            purged = self._purge(
                keys=[*queue_keys(pool), keys.fair_queue(pool), keys.idle_workers(pool)],
                args=[keys.front_gone(front), Job.key_for(""), keys.body("")],
            )
            if cast("int", purged):
                extra = {"action": "jobs_purged", "reason": front}
                log.warning("%d jobs of a web process that is gone were taken out", purged, extra=extra)
        self._purged.add(front)
        self._redis.zremrangebyscore(keys.FRONTS, "-inf", time.time() - LISTED_SECONDS)
