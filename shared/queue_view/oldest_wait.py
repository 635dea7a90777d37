"""How long the oldest waiting request has waited, in one script, without reading the queue."""

from collections.abc import Callable
from pathlib import Path

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from shared import clock, keys
from shared.protocol.relay_queue import FAIR_LUA, MODEL_QUEUES_LUA
from shared.redis_connection.client import register_script

#: API keys whose requests are looked at.
MAX_KEYS = 500


def build_wait_reader(redis: Redis) -> Callable[[str], float]:
    """Returns a function from a pool's name to the seconds for which its oldest interactive request has waited.

    Requests that wait for a limit of their own key do not count.
    """
    script = register_script(redis, FAIR_LUA, MODEL_QUEUES_LUA, Path(__file__).with_name("oldest_wait.lua"))

    def read(pool: str) -> float:
        admitted_at = script(keys=[keys.fair_queue(pool)], args=[MAX_KEYS, RQ_KEY_PREFIX])
        return max(0.0, clock.now() - float(admitted_at)) if admitted_at else 0.0

    return read
