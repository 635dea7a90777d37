"""Detects dead fronts and cancels the requests of their callers, whose connections died with them (I8, I11).

Each front subscribes to a channel of its own. A channel that has no subscriber for FRONT_TIMEOUT_SECONDS, while Redis
replies, means that the front is dead. One whose host has vanished stays subscribed until Redis gives up its
connection, which takes minutes: its heartbeats tell. A front that was only disconnected clears its mark with its
next heartbeat.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from redis import Redis
from rq.job import Job

from shared import clock, keys
from shared.observability.counters import Counters
from shared.protocol.relay_queue import SCHEDULING_LUA, queue_keys
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.fronts")
#: Seconds without a subscription after which a front counts as dead.
FRONT_TIMEOUT_SECONDS = 3.0
#: Seconds without a heartbeat after which a subscribed front is suspected, and for which it may then send one. So a
#: partition of half a minute costs no request, and Redis may have been away for the first part of it.
HEARTBEAT_TIMEOUT_SECONDS, HEARTBEAT_GRACE_SECONDS = 20.0, 10.0
#: Seconds between two checks above which silence is not measured across them: Redis may have been away.
MAX_CHECK_GAP_SECONDS = 2.0
#: Seconds that a dead front stays marked.
GONE_TTL_SECONDS = 3600
#: Seconds after its last heartbeat that a front is still checked.
LISTED_SECONDS = 60.0


class FrontMonitor:
    """The fronts as one worker process sees them."""

    def __init__(
        self, redis: Redis, list_pools: Callable[[], Iterable[str]], counters: Counters, on_gone: Callable[[str], None]
    ) -> None:
        """`on_gone` is called with a dead front's id, at every check."""
        self._redis = redis
        self._list_pools = list_pools
        self._counters = counters
        self._on_gone = on_gone
        self._purge_script = register_script(redis, *SCHEDULING_LUA, Path(__file__).with_name("purge_front.lua"))
        #: Front -> when it was first seen without a subscription, by the monotonic clock.
        self._silent_since: dict[str, float] = {}
        #: Front -> when it was first seen without a heartbeat, by the monotonic clock.
        self._quiet_since: dict[str, float] = {}
        self._checked_at = 0.0
        self._purged: set[str] = set()

    def check(self) -> None:
        """Finds the dead fronts and cancels their requests."""
        now = time.monotonic()
        if now - self._checked_at > MAX_CHECK_GAP_SECONDS:
            self._silent_since.clear()
            self._quiet_since.clear()
        heartbeats = {front.decode(): at for front, at in self._redis.zrange(keys.FRONTS, 0, -1, withscores=True)}
        subscriptions = self._redis.pubsub_numsub(*map(keys.front_channel, heartbeats)) if heartbeats else []
        silent = {front for front, (_, count) in zip(heartbeats, subscriptions, strict=True) if not count}
        quiet = {front for front, at in heartbeats.items() if clock.now() - at > HEARTBEAT_TIMEOUT_SECONDS}
        self._checked_at = time.monotonic()
        self._purged &= silent | quiet
        self._silent_since = {front: self._silent_since.get(front, now) for front in silent}
        self._quiet_since = {front: self._quiet_since.get(front, now) for front in quiet}
        gone = select_older(self._silent_since, now - FRONT_TIMEOUT_SECONDS)
        for front in gone | select_older(self._quiet_since, now - HEARTBEAT_GRACE_SECONDS):
            self._cancel_requests(front)

    def _cancel_requests(self, front: str) -> None:
        """1. Cancel its running attempts here. 2. Mark it, so that none of its jobs starts. 3. Purge its jobs, once."""
        self._on_gone(front)
        if self._redis.set(keys.front_gone(front), 1, ex=GONE_TTL_SECONDS, nx=True):
            self._counters.increment("fronts_lost")
            log.warning("a front is gone", extra={"action": "front_lost", "reason": front})
        if front in self._purged:
            return
        for pool in self._list_pools():
            purged = self._purge_script(
                keys=[*queue_keys(pool), keys.fair_queue(pool), keys.idle_workers(pool)],
                args=[keys.front_gone(front), Job.key_for("")],
            )
            if cast("int", purged):
                extra = {"action": "jobs_purged", "reason": front}
                log.warning("%d waiting jobs of a front that is gone were removed", purged, extra=extra)
        self._purged.add(front)
        self._redis.hdel(keys.FRONT_BODY_BYTES, front)
        self._redis.hdel(keys.FRONT_LOADS, front)
        self._redis.zremrangebyscore(keys.FRONTS, "-inf", clock.now() - LISTED_SECONDS)


def select_older(since: Mapping[str, float], moment: float) -> set[str]:
    """Those whose time is not after the moment."""
    return {name for name, began in since.items() if began <= moment}
