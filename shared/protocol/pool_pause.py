"""Pauses and resumes a pool: while it is paused no worker begins a job of it, and its requests wait.

The mark is in Redis, where turn.lua meets it: a pause is in force at once in all processes, and survives restarts.
"""

import json
from dataclasses import dataclass

from redis import Redis

from shared import clock, keys
from shared.parsing import parse_json_object, read_number


@dataclass(frozen=True)
class PoolPause:
    """Since when a pool is paused, in seconds since the epoch (0: it is not), and by whom, as in the audit log."""

    since: float = 0.0
    by: str = ""


def pause_pool(redis: Redis, pool: str, by: str) -> bool:
    """Returns False if the pool is paused already, which stays as it is."""
    mark = json.dumps({"since": clock.now(), "by": by})
    return bool(redis.set(keys.paused(pool), mark, nx=True))


def resume_pool(redis: Redis, pool: str) -> bool:
    """Workers go on within a second. Returns False if the pool is not paused."""
    return bool(redis.delete(keys.paused(pool)))


def decode_pause(mark: bytes | None) -> PoolPause:
    """`mark` is what Redis has at keys.paused; a pool is paused by any, be it of another version."""
    if mark is None:
        return PoolPause()
    fields = parse_json_object(mark)
    return PoolPause(read_number(fields.get("since")) or clock.now(), str(fields.get("by", "")))
